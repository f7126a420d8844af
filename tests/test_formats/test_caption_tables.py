import pytest

from pcm_plugin.formats.captions.caption_file import CaptionFile
from pcm_plugin.formats.captions.record import Caption
from tests.test_formats.caption_files import read, texts, write

LONE_MARKS = [
    *('id\tcaption\n1\t"keep calm poster on a wall\n2\ta dog in a park\n3\ta cat\n',),
    *('4\ta sign with "\n5\ta car\n',),
]


def test_a_stray_quotation_mark_does_not_merge_rows(tmp_path):
    expected = ['"keep calm poster on a wall', "a dog in a park", "a cat", 'a sign with "', "a car"]
    tsv = "".join(LONE_MARKS)
    assert texts(tmp_path, tsv) == expected
    # A row in quotation marks is not evidence of quoted fields.
    assert texts(tmp_path, tsv + '6\t"stop"\n') == [*expected, '"stop"']
    assert texts(tmp_path, tsv + '6\t"stop" sign\n7\t"a"\n') == [*expected, '"stop" sign', '"a"']
    # Sentences have commas too: only the user can decide.
    csv = tsv.replace("\t", ",")
    with pytest.raises(
        ValueError, match="captions:2: a quotation mark opens a field that one in l"
    ):
        read(tmp_path, csv)
    assert texts(tmp_path, csv, skip_invalid=True) == ["a car"]
    # Even if the file has quoted fields elsewhere.
    csv += '6,"a dog, a cat"\n'
    with pytest.raises(ValueError, match=r"captions:2: .* in line 5 closes, but lines from here"):
        read(tmp_path, csv)
    assert texts(tmp_path, csv, skip_invalid=True) == ["a car", "a dog, a cat"]
    odd = tsv.replace("a cat", "a\tcat")
    with pytest.raises(ValueError, match="captions:4: 3 fields, the first line has 2"):
        read(tmp_path, odd)
    with pytest.raises(ValueError, match="captions:2: a quotation mark opens a field that no oth"):
        read(tmp_path, 'id,caption\n1,"keep calm\n2,a dog\n')


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('id,caption\n1,"a dog, ""big"""\n2,a cat\n', ['a dog, "big"', "a cat"]),
        ('"id","caption"\n"1","a dog"\n"2","a\ncat"\n', ["a dog", "a cat"]),
        ('id,caption\n1,"a dog, big"\n2,"a cat,\nsmall"\n3,"on\nand\non, so"\n', 3),
        ('id\tcaption\n1\t"a dog\nbig"\n2\ta cat\n', ["a dog big", "a cat"]),
        ('"caption"\n"a\ndog"\n"a cat"\n', ["a dog", "a cat"]),
        ('caption\n"two\nlines, a"\n"x, y"\n', None),
        ('id\tcaption\n1\t"a\tdog"\n2\t"stop"\n', ["a dog", "stop"]),
        ('id\tcaption\n1\t"Hello" says the sign\n2\ta cat\n', ['"Hello" says the sign', "a cat"]),
        ('id,caption\n1,"a" dog\n2,a cat\n', ['"a" dog', "a cat"]),
        ('id,caption\n1,"a \\"big\\" dog, here"\n2,"c\\\\d"\n', ['a "big" dog, here', "c\\d"]),
        ('id;caption\r\n1;"a dog; big"\r\n2;a cat\r\n', ["a dog; big", "a cat"]),
        ("\ufeff\ufeffid\u200b,\u00a0caption\u200e\n1,a\n", ["a"]),
        ("sep=;\nid;caption\n1;a dog, a cat\n", ["a dog, a cat"]),
        ('id, caption\n1, "a dog, big"\n2, a cat\n', ["a dog, big", "a cat"]),
        (
            'image_name| number| caption\nx.jpg| 0| A " stop " sign .\ny.jpg| 1| "A" cat .\n',
            ['A " stop " sign .', '"A" cat .'],
        ),
        ("caption\na dog\na cat, a bird\n", ["a dog", "a cat, a bird"]),
        ('"caption"\n"a dog"\n"a cat, big"\n', ["a dog", "a cat, big"]),
        ("id,caption\n1,nan\n2,NULL\n3,\n4,a dog\n", ["a dog"]),
        ("id,caption\n\n1,a dog\n\n", ["a dog"]),
        ("| image | caption |\n|---|:---|\n| a.jpg | a dog |\n", ["a dog"]),
    ],
)
def test_the_meaning_of_quotation_marks_is_detected(tmp_path, content, expected):
    if expected is None:
        with pytest.raises(ValueError, match="captions:2: a quotation mark opens a field that one"):
            read(tmp_path, content)
    elif isinstance(expected, int):
        assert len(read(tmp_path, content)) == expected
    else:
        assert texts(tmp_path, content) == expected


def test_rows_with_a_wrong_number_of_fields_are_named(tmp_path):
    content = 'id,caption\n1,"a, b"\n2,a, b\n3,c\n'
    with pytest.raises(
        ValueError, match=r"captions:3: 3 fields, the first line has 2 \(skip_invalid"
    ):
        read(tmp_path, content)
    assert texts(tmp_path, content, skip_invalid=True) == ["a, b", "c"]
    mixed = 'id,caption\n1,"a, b"\n2,"c" d\n3,"e\n4,"f, g"\n5,h\n'
    assert texts(tmp_path, mixed, skip_invalid=True) == ["a, b", "f, g", "h"]
    report = CaptionFile(tmp_path / "captions", skip_invalid=True).scan()
    assert [message.split(": ")[0].rpartition(":")[2] for message in report.examples] == ["3", "4"]


def test_an_unclosed_field_does_not_consume_the_file(tmp_path):
    rows = [f'{i},"a dog, {i}"' for i in range(600)]
    rows[300] = '300,"never closed, here'
    content = "\n".join(["id,caption", *rows])
    kept = read(tmp_path, content, skip_invalid=True)
    assert {caption.id for caption in kept} == {str(i) for i in range(600)} - {"300"}
    with pytest.raises(ValueError, match=r"captions:302: "):
        read(tmp_path, content)


def test_flickr30k_results(tmp_path):
    rows = [
        "image_name| comment_number| comment",
        "1.jpg| 0| Two men , a dog .",
        "1.jpg| 1| A man .",
    ]
    rows += ['2.jpg| 0| " Stop " , it says .', '2.jpg| 1| "A man', "2.jpg| 4   A dog runs ."]
    content = "\n".join(rows)
    with pytest.raises(ValueError, match="pass column='comment'"):
        read(tmp_path, content, "results.csv")
    with pytest.raises(ValueError, match=r"results.csv:6: 2 fields, the first line has 3"):
        read(tmp_path, content, "results.csv", column="comment")
    assert read(tmp_path, content, "results.csv", column="comment", skip_invalid=True) == [
        Caption("2", "1", "Two men , a dog .", "1.jpg"),
        Caption("3", "1", "A man .", "1.jpg"),
        Caption("4", "2", '" Stop " , it says .', "2.jpg"),
        Caption("5", "2", '"A man', "2.jpg"),
    ]


def test_columns_with_an_image(tmp_path):
    content = "image_id,caption\n5,a dog\nx.jpg,a cat\nNaN,a car\n"
    assert read(tmp_path, content) == [
        Caption("2", "5", "a dog"),
        Caption("3", "x", "a cat", "x.jpg"),
        Caption("4", "4", "a car"),
    ]
    assert texts(tmp_path, "image| text\nx.jpg| a dog\n", column="text") == ["a dog"]
    assert write(tmp_path, "id,caption\n").is_file()
    with pytest.raises(ValueError, match="no captions in"):
        CaptionFile(tmp_path / "captions").scan()


@pytest.mark.parametrize(
    "cell",
    [
        '"[""a dog"", ""it\'s a cat - big""]"',  # JSON
        '"[\'a dog\', ""it\'s a cat - big""]"',  # Python
        '"[\'a dog\'\n ""it\'s a cat - big""]"',  # NumPy
    ],
)
def test_a_list_in_a_field_holds_several_captions(tmp_path, cell):
    content = f"image,caption\nx.jpg,{cell}\ny.jpg,[sic] a cow\n"
    assert read(tmp_path, content) == [
        Caption("x.jpg#0", "x", "a dog", "x.jpg"),
        Caption("x.jpg#1", "x", "it's a cat - big", "x.jpg"),
        Caption(str(3 + cell.count("\n")), "y", "[sic] a cow", "y.jpg"),
    ]


def test_a_list_in_a_field_that_cannot_be_read_is_refused(tmp_path):
    content = "image,caption\nx.jpg,\"['a dog', nan, 'a cat']\"\n"
    with pytest.raises(ValueError, match=r"captions:2: a list of texts that cannot be read: \"\['"):
        read(tmp_path, content)


def test_other_names_of_splits_are_recognized(tmp_path):
    content = "caption,split\na,Training\nb,validation\nc,dev\nd,TEST\n"
    assert texts(tmp_path, content) == ["a"]
    assert texts(tmp_path, content, split="val") == ["b", "c"]
    assert texts(tmp_path, content, split="test") == ["d"]
