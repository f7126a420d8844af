import pytest

from pcm_plugin.errors import UserError
from pcm_plugin.formats.languages import check_language, split_tokens


@pytest.mark.parametrize(
    ("language", "text", "tokens"),
    [
        ("zh", "两只狗，a T-shirt 3个。", ["两", "只", "狗", "a", "t", "shirt", "3", "个"]),
        ("zh-Hant", "貓 和狗", ["貓", "和", "狗"]),
        ("ja", "ビーチの犬が、走る。", [*"ビーチの犬が走る"]),
        ("th", "ที่", ["ที่"]),
        ("tr", "İKİ Irmak, İstanbul'da", ["iki", "ırmak", "istanbul", "da"]),
        ("az", "İT", ["it"]),
        ("zh", "３个ＡＢ&amp;<b>狗</b>🐕‍🦺", ["3", "个", "ab", "狗"]),
        ("zh", "ที่狗", ["ที่", "狗"]),
        ("ja", "人々のﾋﾞｰﾙ", [*"人々のビール"]),
        ("fa", "می\u200cروم", ["می\u200cروم"]),
        ("ko", "漢字를", ["漢字를"]),
        ("de", "Zwei STRAẞEN, rot-weiß!", ["zwei", "straßen", "rot", "weiß"]),
        ("fr", "l\u2019homme a\u0300 3,5 m", ["l", "homme", "à", "3", "5", "m"]),
        ("hi", "पानी की बोतल।", ["पानी", "की", "बोतल"]),
        ("ko", "개 두 마리\U0001f415", ["개", "두", "마리"]),
    ],
)
def test_tokens(language, text, tokens):
    assert split_tokens(text, language) == tokens


@pytest.mark.parametrize("language", ["", "ZH", "chinese", "zh_CN", "z", None])
def test_wrong_codes(language):
    with pytest.raises(UserError, match="`language` must be a code of ISO 639"):
        check_language(language)
