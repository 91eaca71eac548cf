"""CSV: how columns find their fields, cells their values; files of any size, and the line that an error names."""

import base64
import csv
import io
import math
import threading
import time

import numpy as np
import pytest
import requests

from support import models
from support.admin import check_error
from support.dtypes import BY_NAME
from support.typed import Refused, Service, contract, graph, package

DOT3 = graph("float[N,3] X", "float[N] Y", "Y = MatMul(X, w)", constants="float[3] w = {1, 10, 100}")
ROWS = """message Q { repeated Row rows = 1; } message Row { float first_value = 1; float b = 2; float c = 3; }
message A { repeated R rows = 1; } message R { float y = 1; }"""
ALL = graph(
    "float[N] real, int64[N] whole, bool[N] yes, string[N] word, int32[N] kind, string[N] raw",
    "float[N] real_o, int64[N] whole_o, bool[N] yes_o, string[N] word_o, int32[N] kind_o, string[N] raw_o",
    *(f"{name}_o = Identity({name})" for name in ("real", "whole", "yes", "word", "kind", "raw")),
)
ALL_BODY = """enum Kind { NONE = 0; CAT = 1; DOG = 2; }
message Q { repeated Row rows = 1; } message A { repeated R rows = 1; }
message Row { optional float real = 1; int64 whole = 2; bool yes = 3; string word = 4; Kind kind = 5; bytes raw = 6; }
message R { float real_o = 1; int64 whole_o = 2; bool yes_o = 3; string word_o = 4;
Kind kind_o = 5; bytes raw_o = 6; }"""


def read(text: str) -> list[dict]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


def column(answer: str, name: str) -> list[float]:
    return [float(row[name]) for row in read(answer)]


@pytest.fixture(scope="module")
def dot(server, admin):
    mine = package()
    admin.must_push("csv-dot", DOT3, contract=contract(ROWS, mine))
    return Service(server, "csv-dot", mine)


@pytest.fixture(scope="module")
def mixed(server, admin):
    mine = package()
    admin.must_push("csv-all", ALL, contract=contract(ALL_BODY, mine))
    return Service(server, "csv-all", mine)


FORMS = {
    "plain": "first_value,b,c\n1,2,3\n4,5,6\n",
    "no-end-of-line": "first_value,b,c\n1,2,3\n4,5,6",
    "crlf": "first_value,b,c\r\n1,2,3\r\n4,5,6\r\n",
    "mixed-line-ends": "first_value,b,c\r\n1,2,3\n4,5,6\r\n",
    "byte-order-mark": "\ufefffirst_value,b,c\n1,2,3\n4,5,6\n",
    "byte-order-mark-and-quotes": '\ufeff"first_value","b","c"\n"1","2","3"\n4,5,6\n',
    "lower-camel": "firstValue,b,c\n1,2,3\n4,5,6\n",
    "other-order": "c,first_value,b\n3,1,2\n6,4,5\n",
    "quoted": '"first_value","b","c"\r\n"1","2","3"\r\n"4","5","6"\r\n',
    "exponents": "first_value,b,c\n1e0,2.0,+3\n.4e1,5.,6E0\n",
}


@pytest.mark.parametrize("text", FORMS.values(), ids=FORMS)
def test_forms_of_a_file(dot, text):
    answer = dot.csv("Call", text)
    assert column(answer, "y") == [321, 654]
    assert answer.split("\n")[0].rstrip("\r") == "y"


def test_no_rows(dot):
    answer = dot.csv("Call", "first_value,b,c\n")
    assert read(answer) == []


@pytest.mark.parametrize("value", ["NaN", "nan", "inf", "-Infinity", "Infinity", "-inf"])
def test_nan_and_infinities(typed, value):
    service = typed(
        models.identity(BY_NAME["FP32"].onnx, (None, 1)),
        "message Q { repeated R rows = 1; } message R { float x = 1; } message A { repeated float y = 1; }",
    )
    try:
        answer = service.csv("Call", f"x\n{value}\n1\n")
    except Refused as refused:
        assert value in ("nan", "inf", "-inf") and "2" in refused.text, refused
    else:
        got = column(answer, "y")[0]
        assert math.isnan(got) if "a" in value else got == float(value)


CELLS = {
    # column: (cell, answer); the cell as it is written in the file
    "true": ("yes", "TRUE", "true"),
    "True": ("yes", "True", "true"),
    "one-is-true": ("yes", "1", "true"),
    "zero-is-false": ("yes", "0", "false"),
    "false": ("yes", "false", "false"),
    "enum-name": ("kind", "DOG", "DOG"),
    "enum-number": ("kind", "1", "CAT"),
    "quoted-comma": ("word", '"a,b"', "a,b"),
    "quoted-quote": ("word", '"a ""b"""', 'a "b"'),
    "quoted-line": ("word", '"a\nb\r\nc"', "a\nb\r\nc"),
    "spaces-stay": ("word", "  a ", "  a "),
    "empty-string": ("word", "", ""),
    "unicode": ("word", "größe 🦊", "größe 🦊"),
    "looks-like-a-formula": ("word", "=1+2", "=1+2"),
    "number-as-text": ("word", "0012", "0012"),
    "base64": ("raw", base64.b64encode(b"\xff\0a").decode(), base64.b64encode(b"\xff\0a").decode()),
    "64-bit": ("whole", "-9223372036854775808", "-9223372036854775808"),
    "optional-empty": ("real", "", "NaN"),
}
PLAIN = {"real": "1", "whole": "2", "yes": "1", "word": "w", "kind": "0", "raw": ""}


@pytest.mark.parametrize(("name", "cell", "wanted"), CELLS.values(), ids=CELLS)
def test_cells(mixed, name, cell, wanted):
    row = PLAIN | {name: cell}
    answer = mixed.csv("Call", ",".join(row) + "\r\n" + ",".join(row.values()) + "\r\n")
    got = read(answer)[0][f"{name}_o"]
    assert got == wanted or (wanted == "NaN" and got.lower() == "nan"), answer


def test_an_optional_column_may_be_missing(mixed):
    row = {key: value for key, value in PLAIN.items() if key != "real"}
    got = read(mixed.csv("Call", ",".join(row) + "\n" + ",".join(row.values()) + "\n"))
    assert math.isnan(float(got[0]["real_o"]))


BAD = {
    "unknown-column": ("first_value,b,c,extra\n1,2,3,4\n", ("extra",)),
    "missing-column": ("first_value,b\n1,2\n", ("c",)),
    "column-twice": ("first_value,b,c,b\n1,2,3,4\n", ("b",)),
    "column-under-both-names": ("first_value,b,c,firstValue\n1,2,3,4\n", ("irst",)),
    "no-header": ("1,2,3\n4,5,6\n", ()),
    "empty": ("", ()),
    "only-a-byte-order-mark": ("\ufeff", ()),
    "too-few-cells": ("first_value,b,c\n1,2,3\n1,2\n", ("line 3",)),
    "too-many-cells": ("first_value,b,c\n1,2,3\n1,2,3,4\n", ("line 3",)),
    "text": ("first_value,b,c\n1,2,3\n1,abc,3\n", ("line 3", "b", "abc")),
    "empty-number": ("first_value,b,c\n1,2,3\n1,,3\n", ("line 3", "b")),
    "empty-line-in-between": ("first_value,b,c\n1,,3\n", ("line 2", "b")),
    "comma-as-decimal": ('first_value,b,c\n1,"2,5",3\n', ("line 2", "b")),
    "semicolons": ("first_value;b;c\n1;2;3\n", ()),
    "open-quote": ('first_value,b,c\n1,2,"3\n', ("line",)),
    "no-utf8": (b"first_value,b,c\n1,2,\xff\n", ("line 2",)),
    "utf-16": ("first_value,b,c\n1,2,3\n".encode("utf-16"), ()),
    "other-case": ("First_Value,b,c\n1,2,3\n", ("First_Value",)),
}


@pytest.mark.parametrize(("text", "named"), BAD.values(), ids=BAD)
def test_what_is_wrong_is_named(dot, text, named):
    body = text if isinstance(text, bytes) else text.encode()
    error = check_error(dot.post("Call", body, "text/csv"), 400, {"BAD_CSV", "BAD_FIELD"})
    for part in named:
        assert part in error["error"], error["error"]


WRONG_CELLS = {
    "bool": ("yes", "maybe"), "enum": ("kind", "FISH"), "whole-fraction": ("whole", "1.5"),
    "whole-empty": ("whole", ""),
    "whole-too-big": ("whole", "9223372036854775808"), "base64": ("raw", "!!!"), "enum-case": ("kind", "dog"),
    "bool-empty": ("yes", ""), "text-in-optional": ("real", "x"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "cell"), WRONG_CELLS.values(), ids=WRONG_CELLS)
def test_cells_of_the_wrong_kind(mixed, name, cell):
    rows = [PLAIN, PLAIN | {name: cell}]
    text = ",".join(PLAIN) + "\n" + "".join(",".join(row.values()) + "\n" for row in rows)
    error = check_error(mixed.post("Call", text, "text/csv"), 400, {"BAD_CSV", "BAD_FIELD"})
    assert "line 3" in error["error"] and name in error["error"], error["error"]


def test_the_line_is_the_files_not_the_rows(mixed):
    """Cells with line breaks count as the lines that they take, as in an editor."""
    rows = [PLAIN | {"word": '"a\nb\nc"'}, PLAIN, PLAIN | {"whole": "x"}]
    text = ",".join(PLAIN) + "\n" + "".join(",".join(row.values()) + "\n" for row in rows)
    error = check_error(mixed.post("Call", text, "text/csv"), 400, {"BAD_CSV", "BAD_FIELD"})
    assert "line 6" in error["error"], error["error"]


def test_values_that_do_not_fit_the_model_name_their_line(typed):
    service = typed(graph("uint8[N,2] X", "uint8[N,2] Y", "Y = Identity(X)"),
                    "message Q { repeated R rows = 1; } message R { int32 a = 1; int32 b = 2; } message A { "
                    "repeated R rows = 1; }")  # fmt: skip
    error = check_error(service.post("Call", "a,b\n1,2\n3,300\n", "text/csv"), 400, {"BAD_FIELD", "BAD_CSV"})
    assert "line 3" in error["error"] and "300" in error["error"] and "UINT8" in error["error"], error["error"]


NESTED = """message Q { repeated Row rows = 1; } message Row { Person person = 1; repeated float pixels = 2; }
message Person { float age = 1; Name name = 2; } message Name { float length = 1; }
message A { repeated R rows = 1; } message R { Sums sums = 1; repeated float twice = 2; }
message Sums { float person = 1; }"""
NESTED_MODEL = graph(
    "float[N,2] person, float[N,3] pixels", "float[N] sums, float[N,3] twice", "sums = MatMul(person, w)",
    "twice = Add(pixels, pixels)", constants="float[2] w = {1, 10}",
)  # fmt: skip


def test_nested_and_repeated_columns(typed):
    service = typed(NESTED_MODEL, NESTED)
    text = "person.age,pixels[0],pixels[1],pixels[2],person.name.length\n1,2,3,4,5\n6,7,8,9,10\n"
    answer = service.csv("Call", text)
    assert [[float(cell) for cell in row.values()] for row in read(answer)] == [[51, 4, 6, 8], [106, 14, 16, 18]]
    assert answer.splitlines()[0] == "sums.person,twice[0],twice[1],twice[2]"
    for columns in ("pixels[0],pixels[1]", "pixels[0],pixels[2],pixels[3]", "pixels[0],pixels[1],pixels[1]",
                    "pixels[1],pixels[2],pixels[3]", "pixels[0],pixels[1],pixels[2],pixels[3]",
                    "pixels[-1],pixels[0],pixels[1]",
                    "pixels[0],pixels[1],pixels[99999999999999999999]"):  # fmt: skip
        count = columns.count(",") + 3
        text = f"person.age,person.name.length,{columns}\n" + ",".join("1" * count) + "\n"
        check_error(service.post("Call", text, "text/csv"), 400, {"BAD_CSV", "BAD_FIELD", "BAD_SHAPE"})


def test_repeated_columns_in_any_order_and_wide(typed):
    service = typed(graph("float[N,784] X", "float[N] Y", "Y = ReduceSum <keepdims = 0> (X, axes)",
                          constants="int64[1] axes = {1}"),
                    "message Q { repeated I images = 1; } message I { repeated float pixels = 1; } message A { "
                    "repeated float y = 1; }")  # fmt: skip
    order = np.random.default_rng(1).permutation(784)
    header = ",".join(f"pixels[{index}]" for index in order)
    answer = service.csv(
        "Call", header + "\n" + ",".join(str(index) for index in order) + "\n" + ",".join(["1"] * 784) + "\n"
    )
    assert column(answer, "y") == [784 * 783 / 2, 784]


def test_a_map_in_the_answer_becomes_columns(typed):
    body = """message Q { repeated Row rows = 1; } message Row { float a = 1; float b = 2; float c = 3; }
    message A { repeated R rows = 1; } message R { int64 label = 1; map<string, float> probabilities = 2
      [(baton.tensor) = "scores", (baton.label) = "setosa", (baton.label) = "x,y", (baton.label) = "virginica"]; }"""
    model = graph(
        "float[N,3] X",
        "int64[N] label, float[N,3] scores",
        "label = ArgMax <axis = 1, keepdims = 0> (X)",
        "scores = Identity(X)",
    )
    service = typed(model, body)
    answer = service.csv("Call", "a,b,c\n1,2,3\n9,8,7\n")
    got = read(answer)
    columns = ["label", "probabilities[setosa]", "probabilities[x,y]", "probabilities[virginica]"]
    assert sorted(got[0]) == sorted(columns), answer
    assert [[float(row[name]) for name in columns] for row in got] == [[2, 1, 2, 3], [0, 9, 8, 7]]


def test_texts_of_the_answer_are_quoted_so_that_they_read_back(mixed):
    texts = ["a,b", 'q"q', "line\nbreak", "crlf\r\nbreak", "", " lead", "🦊", "=cmd()"]
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, PLAIN)
    writer.writeheader()
    for text in texts:
        writer.writerow(PLAIN | {"word": text})
    assert [row["word_o"] for row in read(mixed.csv("Call", out.getvalue()))] == texts


SHAPES = {
    "one-row-messages": (
        "message Q { float a = 1; float b = 2; float c = 3; } message A { float y = 1; }", "a,b,c", "y"),
    "columns": ("message Q { repeated float a = 1; repeated float b = 2; repeated float c = 3; } message A { "
    "repeated float y = 1; }",
                "a,b,c", "y"),
    "client-stream": ("service S { rpc Call(stream Q) returns (A); } message Q { float a = 1; float b = 2; "
    "float c = 3; } "
                      "message A { repeated float y = 1; }", "a,b,c", "y"),
    "server-stream": ("service S { rpc Call(Q) returns (stream A); } message Q { repeated R rows = 1; } "
                      "message R { float a = 1; float b = 2; float c = 3; } message A { float y = 1; }", "a,b,c", "y"),
    "bidi": ("service S { rpc Call(stream Q) returns (stream A); } message Q { float a = 1; float b = 2; "
    "float c = 3; } "
             "message A { float y = 1; }", "a,b,c", "y"),
}  # fmt: skip


@pytest.mark.parametrize(("body", "header", "answered"), SHAPES.values(), ids=SHAPES)
def test_methods_without_streams_or_with_any(typed, body, header, answered):
    service = typed(DOT3, body)
    answer = service.csv("Call", f"{header}\n1,2,3\n4,5,6\n")
    assert column(answer, answered) == [321, 654]


def test_a_model_for_one_row_at_a_time(typed):
    service = typed(
        graph("float[1,3] X", "float[1] Y", "Y = MatMul(X, w)", constants="float[3] w = {1, 10, 100}"),
        SHAPES["one-row-messages"][0],
    )
    answer = service.csv("Call", "a,b,c\n1,2,3\n4,5,6\n")
    assert column(answer, "y") == [321, 654]


# Large files.


def numbers(count: int) -> np.ndarray:
    return np.random.default_rng(5).integers(0, 1000, (count, 3))


def lines(table: np.ndarray) -> list[str]:
    return [f"{a}.25,{b}.5,{c}.125" for a, b, c in table.tolist()]


def test_a_bad_cell_in_line_70000(dot):
    rows = lines(numbers(100_000))
    rows[69_998] = "1,oops,3"
    error = check_error(
        dot.post("Call", "first_value,b,c\n" + "\n".join(rows) + "\n", "text/csv"), 400, {"BAD_CSV", "BAD_FIELD"}
    )
    assert "line 70000" in error["error"].replace(",", "") and "oops" in error["error"] and "b" in error["error"], (
        error["error"]
    )


def test_lines_that_the_model_fails_on(typed):
    """The model says no row, so the piece of the file is named."""
    model = graph("int64[N] i", "float[N] y", "y = Gather(t, i)", constants="float[4] t = {1, 2, 3, 4}")
    service = typed(model, "message Q { int64 i = 1; } message A { float y = 1; }")
    for good, after in ((0, 5), (50_000, 50_000)):
        text = "i\n" + "1\n" * good + "99\n" + "1\n" * after
        error = check_error(service.post("Call", text, "text/csv"), 500, "MODEL_FAILED")
        first, last = (int(word) for word in error["error"].partition(":")[0].split() if word.isdigit())
        assert first <= good + 2 <= last < first + 10_000, error["error"]


def rss(server, what: str) -> float:
    """MiB."""
    with open(f"/proc/{server.process.pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(what)) / 1024


def test_thirty_megabytes_in_a_process_that_stays_small(server, dot):
    count = 1_400_000
    table = numbers(count)
    body = ("first_value,b,c\n" + "\n".join(lines(table)) + "\n").encode()
    assert len(body) > 28e6, len(body)
    dot.csv("Call", body[: body.index(b"\n", 400_000) + 1])
    with open(f"/proc/{server.process.pid}/clear_refs", "w") as peak:
        peak.write("5")
    before = rss(server, "VmRSS")

    def pieces():
        for start in range(0, len(body), 1 << 16):
            yield body[start : start + (1 << 16)]

    answer = dot.post("Call", pieces(), "text/csv")
    grown = rss(server, "VmHWM") - before
    assert answer.status_code == 200, answer.text[:300]
    got = np.array(answer.text.split("\n", 1)[1].split(), dtype=np.float64)
    wanted = (table + [0.25, 0.5, 0.125]) @ [1, 10, 100]
    assert len(got) == count and np.allclose(got, wanted, rtol=1e-6)
    assert grown < 24, f"{grown:.1f} MiB more for {len(body) / 1e6:.0f} MB of CSV"


def test_files_in_parallel_answer_for_themselves(dot):
    faults = []

    def client(index: int) -> None:
        got = column(dot.csv("Call", "first_value,b,c\n" + f"{index},0,0\n" * 20_000), "y")
        if got != [index] * 20_000:
            faults.append(index)

    threads = [threading.Thread(target=client, args=(index,)) for index in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not faults


def test_a_file_keeps_the_version_that_it_began_with(server, admin, name):
    """Its head is answered by that version already when another contract comes; the rest is too."""
    mine = package()
    admin.must_push(name, DOT3, contract=contract(ROWS, mine))
    service = Service(server, name, mine)
    url = service.url("Call")

    def pieces():
        yield b"first_value,b,c\n" + b"1,2,3\n" * 30_000
        time.sleep(0.3)
        other = ROWS.replace("first_value", "renamed").replace("float y", "double z")
        doubled = graph("float[N,3] X", "float[N] Y", "Y = MatMul(X, w)", constants="float[3] w = {2, 20, 200}")
        admin.must_push(name, doubled, contract=contract(other, mine), query={"on_breaking": "allow"})
        yield b"1,2,3\n" * 30_000

    answer = requests.post(url, data=pieces(), headers={"content-type": "text/csv"}, timeout=60)
    assert answer.status_code == 200, answer.text[:300]
    assert answer.headers["baton-model-version"] == "1"
    assert column(answer.text, "y") == [321] * 60_000
    assert column(
        requests.post(url, data="renamed,b,c\n1,2,3\n", headers={"content-type": "text/csv"}, timeout=60).text, "z"
    ) == [642]


def test_a_client_that_leaves_in_the_middle_leaves_no_file(server, dot):
    def pieces():
        yield b"first_value,b,c\n" + b"1,2,3\n" * 50_000
        raise ConnectionAbortedError

    for _ in range(3):
        with pytest.raises((requests.RequestException, ConnectionAbortedError)):
            dot.post("Call", pieces(), "text/csv")
    assert column(dot.csv("Call", "first_value,b,c\n1,2,3\n"), "y") == [321]
    assert server.staged_files() == []
