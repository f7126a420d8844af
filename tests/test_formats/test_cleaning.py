import pytest

from pcm_plugin.formats.cleaning import clean_text
from pcm_plugin.formats.tokenize import tokenize


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("a red car\u200e parked", "a red car parked"),
        ("\u202ba\u202c \u2066dog\u2069\u061c", "a dog"),
        ("a red\u200bcar", "a red car"),
        ("soft\u00adware box", "software box"),
        ("a\u2060 dog\ufeff", "a dog"),
        ("a dog\U000e0067\U000e007f \u2764\ufe0f\U000e0100", "a dog \u2764"),
        ("a\u00a0red\u202fcar\u3000\u2003x\u3164y", "a red car x y"),
        ("cafe\u0301\x00\x1bbar\x7f", "caf\u00e9 bar"),
        ("it\u0092s \u0093here\u0094 \u0081x", "it\u2019s \u201chere\u201d x"),
        ("a man&#39;s car &amp; a dog<br>", "a man's car & a dog"),
        ("one<br/>two<BR >three</p><p class='x'>four", "one two three four"),
        ("a <b>re</b>d <a href='x'>car</a><!-- no -->", "a red car"),
        ("salt &amp pepper &nbsp;&#160;&#xA0; &#8203; &eacute;t&eacute;", "salt & pepper été"),
        ("&amp;lt;b&amp;gt;bold&lt;/b&gt; &amp;#39;", "bold '"),
        ("it&#146;s", "it\u2019s"),
        ("R&D, AT&T &copy of; a < b > c <3 <unk> <person>", None),
        ("\uff21 re\uff44 \ufb01re \U0001d41b\U0001d428x \uff76\uff9e", "A red fire box \u30ac"),
        ("½ x² \u2122 ①", None),
        ("می\u200cروم به\u200c\u200c", "می\u200cروم به"),
        ("क्\u200dष d\u200co\u200dg", "क्\u200dष dog"),
        ("\U0001f415\u200d\U0001f9ba \u2764\ufe0f\u200d\U0001f525", None),
    ],
)
def test_the_visible_text_remains(text, seen):
    expected = text.replace("\ufe0f", "") if seen is None else seen
    assert clean_text(text) == expected
    assert clean_text(expected) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a red car\u200e parked", ["a", "red", "car", "parked"]),
        ("a man&#39;s car<br>runs", ["a", "mans", "car", "runs"]),
        ("\uff21\uff22\uff23 shop \ufb01re", ["abc", "shop", "fire"]),
        ("dog \U0001f415\u200d\U0001f9ba \u2764\ufe0f", ["dog"]),
    ],
)
def test_words_are_those_of_the_visible_text(text, words):
    assert tokenize(text) == words
