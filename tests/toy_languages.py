"""Chinese and Turkish captions of the toy world, with taggers of their nouns."""

from random import Random

from pcm_plugin.toyworld.scene import Scene, Thing
from pcm_plugin.toyworld.things import KINDS

# Noun and measure word of each kind, in the order of KINDS.
_CHINESE = """
男人个 女人个 狗只 猫只 马匹 羊只 鸟只 鸭子只 大象头 兔子只 汽车辆 公交车辆
卡车辆 自行车辆 船艘 飞机架 椅子把 桌子张 床张 沙发张 灯盏 钟个 球个 雨伞把
杯子个 风筝只 气球个 吉他把 蛋糕块 披萨块 香蕉根 树棵 花朵 房子座 帐篷顶 雪人个
"""
CHINESE = dict(zip(KINDS, ((w[:-1], w[-1]) for w in _CHINESE.split()), strict=True))
TURKISH = dict(
    zip(
        KINDS,
        (
            *("adam", "kadın", "köpek", "kedi", "at", "koyun", "kuş", "ördek", "fil", "tavşan"),
            *("araba", "otobüs", "kamyon", "bisiklet", "tekne", "uçak", "sandalye", "masa"),
            *("yatak", "koltuk", "lamba", "saat", "top", "şemsiye", "bardak", "uçurtma", "balon"),
            *("gitar", "pasta", "pizza", "muz", "ağaç", "çiçek", "ev", "çadır", "kardan adam"),
        ),
        strict=True,
    )
)
# Chinese and Turkish words of colors, places and relations.
_COLORS = {
    "red": ("红色", "kırmızı"),
    "blue": ("蓝色", "mavi"),
    "green": ("绿色", "yeşil"),
    "yellow": ("黄色", "sarı"),
    "orange": ("橙色", "turuncu"),
    "purple": ("紫色", "mor"),
    "pink": ("粉色", "pembe"),
    "brown": ("棕色", "kahverengi"),
    "white": ("白色", "beyaz"),
    "black": ("黑色", "siyah"),
    "gray": ("灰色", "gri"),
}
_PLACES = {
    "park": ("公园里", "parkta"),
    "beach": ("海滩上", "sahilde"),
    "street": ("街上", "sokakta"),
    "snow": ("雪地里", "karda"),
    "desert": ("沙漠里", "çölde"),
    "lake": ("湖边", "gölde"),
    "kitchen": ("厨房里", "mutfakta"),
    "living room": ("客厅里", "salonda"),
    "studio": ("", ""),
}
_RELATIONS = {
    "on": ("上面", "üstünde"),
    "under": ("下面", "altında"),
    "behind": ("后面", "arkasında"),
    "in front of": ("前面", "önünde"),
    "above": ("上方", "üzerinde"),
    "next to": ("旁边", "yanında"),
    "left of": ("左边", "solunda"),
    "right of": ("右边", "sağında"),
}
_HARMONY = {"a": "ı", "ı": "ı", "e": "i", "i": "i", "o": "u", "u": "u", "ö": "ü", "ü": "ü"}
_SOFTENED = {"k": "ğ", "ç": "c"}


def chinese(scene: Scene, seed: int) -> str:
    """Return a Chinese caption: no spaces, measure words."""
    rng = Random(f"zh/{seed}")
    first, *others = [_chinese_thing(thing, rng) for thing in scene.things[:2]]
    place = _PLACES[scene.place][0]
    if others and scene.relation:
        clause = f"{first}在{others[0]}的{_RELATIONS[scene.relation][0]}"
        return f"{place},{clause}" if place and rng.random() < 0.5 else clause
    return f"{place}有{'和'.join([first, *others])}"


def turkish(scene: Scene, seed: int) -> str:
    """Return a Turkish caption: suffixes with vowel harmony, a capital letter, a full stop."""
    rng = Random(f"tr/{seed}")
    first, *others = [_turkish_thing(thing, rng) for thing in scene.things[:2]]
    place = _PLACES[scene.place][1]
    if others and scene.relation:
        owner = _genitive(others[0], TURKISH[scene.things[1].kind])
        text = f"{owner} {_RELATIONS[scene.relation][1]} {first} var"
        text = f"{place} {text}" if place and rng.random() < 0.5 else text
    else:
        text = " ".join(filter(None, (place, " ve ".join([first, *others]), "var")))
    return ("İ" if text[0] == "i" else text[0].upper()) + text[1:] + "."


def find_chinese_nouns(captions: list[str]) -> list[list[str]]:
    """Return the nouns of Chinese captions (a tagger)."""
    nouns = [noun for noun, _ in CHINESE.values()]
    return [[n for n in nouns for _ in range(text.count(n))] for text in captions]


def find_turkish_nouns(captions: list[str]) -> list[list[str]]:
    """Return the nouns of Turkish captions in their dictionary form (a tagger)."""
    forms = {form: n for n in TURKISH.values() for form in (n, _genitive(n, n))}
    return [
        [forms[word] for word in text.lower().rstrip(".").split() if word in forms]
        for text in captions
    ]


def _chinese_thing(thing: Thing, rng: Random) -> str:
    noun, measure = CHINESE[thing.kind]
    color = _COLORS[thing.color][0]
    adjective = f"穿{color}衣服的" if KINDS[thing.kind].group == "person" else f"{color}的"
    return f"{'一两三'[thing.count - 1]}{measure}{adjective if rng.random() < 0.5 else ''}{noun}"


def _turkish_thing(thing: Thing, rng: Random) -> str:
    count = ("bir", "iki", "üç")[thing.count - 1]
    color = _COLORS[thing.color][1] if rng.random() < 0.5 else ""
    if color and KINDS[thing.kind].group == "person":
        color += " giysili"
    words = (color, count) if thing.count == 1 else (count, color)
    return " ".join(filter(None, (*words, TURKISH[thing.kind])))


def _genitive(phrase: str, noun: str) -> str:
    """Return a phrase that ends with a noun in the genitive: masa, masanın; köpek, köpeğin."""
    if noun == "saat":
        return f"{phrase}in"
    vowels = [letter for letter in noun if letter in _HARMONY]
    if noun[-1] in _HARMONY:
        phrase += "n"
    elif len(vowels) > 1:
        phrase = phrase[:-1] + _SOFTENED.get(phrase[-1], phrase[-1])
    return f"{phrase}{_HARMONY[vowels[-1]]}n"
