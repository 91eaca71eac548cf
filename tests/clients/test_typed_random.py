"""Models and contracts put together at random, in every layout that is documented: what goes in comes out."""

import base64
import csv
import io
import random

import numpy as np
import pytest
from onnx import helper

from support.dtypes import BY_NAME, DTYPES
from support.models import build, value
from support.typed import assert_same, graph

INTEGERS = ("int32", "int64", "uint32", "uint64", "sint32", "sint64", "fixed32", "fixed64", "sfixed32", "sfixed64")
ROW_SHAPES = ((), (1,), (3,), (2, 2), (1, 1, 2))


class Tensor:
    """One input, and the output that is the same."""

    def __init__(self, chance: random.Random, index: int, shapes):
        self.dtype = chance.choice(DTYPES)
        self.shape = chance.choice(shapes)
        self.size = int(np.prod(self.shape, dtype=int))
        self.input = f"{chance.choice(('in put', 'In.Put', 'input'))}-{index}"
        self.field = f"{chance.choice(('in_put', 'input', 'inPut'))}{index}"
        self.output = f"out:{index}"
        self.answer = f"OUT_{index}"
        if self.dtype.is_bytes:
            self.kind = chance.choice(("string", "bytes"))
        elif self.dtype.name == "BOOL":
            self.kind = "bool"
        else:
            self.kind = chance.choice(("float", "double") if self.dtype.is_float else INTEGERS)

    def element(self, chance: random.Random):
        """A value that both sides hold exactly."""
        if self.dtype.is_bytes:
            text = chance.choice(("", "a", "größe", 'a,b "c"', "🦊"))
            return base64.b64encode(text.encode()).decode() if self.kind == "bytes" else text
        if self.dtype.name == "BOOL":
            return chance.random() < 0.5
        if self.dtype.is_float:
            return chance.randint(-128, 128) / 4
        limits = np.iinfo(self.dtype.numpy)
        low, high = (0, 2**32 - 1) if self.kind in ("uint32", "fixed32") else (0, 2**64 - 1)
        if self.kind in ("int32", "sint32", "sfixed32"):
            low, high = -(2**31), 2**31 - 1
        elif self.kind in ("int64", "sint64", "sfixed64"):
            low, high = -(2**63), 2**63 - 1
        low, high = max(low, int(limits.min)), min(high, int(limits.max))
        return chance.choice((low, high, chance.randint(low, high)))

    def row(self, chance: random.Random):
        values = [self.element(chance) for _ in range(self.size)]
        return values if self.is_list else values[0]

    @property
    def is_list(self) -> bool:
        return self.size > 1


def model(tensors) -> bytes:
    nodes = [helper.make_node("Identity", [each.input], [each.output]) for each in tensors]
    ends = [[value(name, each.dtype.onnx, (None, *each.shape)) for each, name in zip(tensors, names, strict=True)]
            for names in ([each.input for each in tensors], [each.output for each in tensors])]  # fmt: skip
    return build(nodes, *ends)


def fields(tensors, chance: random.Random, names, repeated=lambda tensor: tensor.is_list) -> str:
    numbers = chance.sample(range(1, 40), len(tensors))
    lines = [
        f"{'repeated ' if repeated(tensor) else ''}{tensor.kind} {name} = {number};"
        for tensor, name, number in zip(tensors, names, numbers, strict=True)
    ]
    chance.shuffle(lines)
    return " ".join(lines)


def nested(tensors, names, side: str) -> tuple[str, str]:
    """A message for each tensor, whose fields are its columns."""
    outer, inner = [], []
    for index, (tensor, name) in enumerate(zip(tensors, names, strict=True)):
        columns = " ".join(f"{tensor.kind} c{column} = {column + 1};" for column in range(tensor.size))
        inner.append(f"message {side}{index} {{ {columns} }}")
        outer.append(f"{side}{index} {name} = {index + 1};")
    return " ".join(outer), " ".join(inner)


def columns(values) -> dict:
    return {f"c{index}": each for index, each in enumerate(values if isinstance(values, list) else [values])}


@pytest.mark.parametrize("layout", ["row", "rows", "columns", "nested", "rows-of-nested"])
@pytest.mark.parametrize("seed", range(8))
def test_what_goes_in_comes_out(typed, layout, seed):
    chance = random.Random(f"{layout}{seed}")
    shapes = ((), (1,)) if layout == "columns" else ROW_SHAPES
    tensors = [Tensor(chance, index, shapes) for index in range(chance.randint(2 if "nested" in layout else 1, 4))]
    asked, answered = [each.field for each in tensors], [each.answer for each in tensors]
    count = chance.randint(1, 5)
    data = [{each: each.row(chance) for each in tensors} for _ in range(count)]
    if layout == "row":
        body = f"message Q {{ {fields(tensors, chance, asked)} }} message A {{ {fields(tensors, chance, answered)} }}"
        request, wanted = ({name(each): data[0][each] for each in tensors} for name in (field_of, answer_of))
    elif layout == "rows":
        body = f"message Q {{ repeated Row rows = 3; }} message Row {{ {fields(tensors, chance, asked)} }}"
        body += f"message A {{ repeated Out all = 9; }} message Out {{ {fields(tensors, chance, answered)} }}"
        request = {"rows": [{each.field: row[each] for each in tensors} for row in data]}
        wanted = {"all": [{each.answer: row[each] for each in tensors} for row in data]}
    elif layout == "columns":
        body = f"message Q {{ {fields(tensors, chance, asked, lambda _: True)} }}"
        body += f"message A {{ {fields(tensors, chance, answered, lambda _: True)} }}"
        request, wanted = (
            {name(each): [row[each] for row in data] for each in tensors} for name in (field_of, answer_of)
        )
    else:
        (outer_in, inner_in), (outer_out, inner_out) = nested(tensors, asked, "I"), nested(tensors, answered, "O")
        one, other = ({name(each): columns(data[0][each]) for each in tensors} for name in (field_of, answer_of))
        if layout == "nested":
            body = f"message Q {{ {outer_in} }} message A {{ {outer_out} }} {inner_in} {inner_out}"
            request, wanted = one, other
        else:
            body = (
                f"message Q {{ repeated Row rows = 1; }} message Row {{ {outer_in} }} message A {{ "
                f"repeated Out rows = 1; }}"
            )
            body += f"message Out {{ {outer_out} }} {inner_in} {inner_out}"
            request, wanted = {"rows": [one, one, one]}, {"rows": [other, other, other]}
    service = typed(model(tensors), body)
    service.check("Call", request, wanted, 0)
    if layout == "rows":
        same_over_csv(service, tensors, data)


def field_of(tensor) -> str:
    return tensor.field


def answer_of(tensor) -> str:
    return tensor.answer


def cells(tensor, name: str, values) -> dict:
    return {f"{name}[{index}]": each for index, each in enumerate(values)} if tensor.is_list else {name: values}


def same_over_csv(service, tensors, data) -> None:
    rows = [{key: cell for each in tensors for key, cell in cells(each, each.field, row[each]).items()} for row in data]
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, rows[0])
    writer.writeheader()
    writer.writerows(rows)
    got = list(csv.DictReader(io.StringIO(service.csv("Call", out.getvalue()), newline="")))
    wanted = [
        {key: cell for each in tensors for key, cell in cells(each, each.answer, row[each]).items()} for row in data
    ]
    for line, other in zip(got, wanted, strict=True):
        assert set(line) == set(other)
        for key, cell in other.items():
            text = str(cell).lower() if isinstance(cell, bool) else cell
            assert_same(float(line[key]) if isinstance(text, float) else line[key], text, key, 0)


SQUARE = graph("float[N,2,M] X, int64[N] k", "float[N,M] Y", "s = ReduceSum <keepdims = 0> (X, axis)",
               "f = Cast <to = 1> (k)",
               "c = Unsqueeze(f, one)", "Y = Mul(s, c)",
               constants="int64[1] axis = {1}, int64[1] one = {1}")  # fmt: skip


@pytest.mark.parametrize("width", [1, 2, 5, 100])
def test_dimensions_that_vary_within_a_batch_of_a_model_of_two_inputs(typed, width):
    """k * (first half + second half), computed here as well."""
    service = typed(SQUARE, "message Q { repeated Row rows = 1; } message Row { repeated float x = 1; sint32 k = 2; }"
                            "message A { repeated Out rows = 1; } message Out { repeated double y = 1; }")  # fmt: skip
    table = np.random.default_rng(width).integers(-9, 9, (3, 2, width))
    factors = [2, -1, 0]
    request = {"rows": [{"x": row.ravel().tolist(), "k": k} for row, k in zip(table, factors, strict=True)]}
    wanted = (table.sum(axis=1) * np.array(factors)[:, None]).astype(float)
    service.check("Call", request, {"rows": [{"y": row.tolist()} for row in wanted]})
    if width == 5:
        ragged = {"rows": [request["rows"][0], {"x": [1] * 4, "k": 1}]}
        service.refuses("Call", ragged, "BAD_SHAPE", 400, "rows[1].x")


def test_datatypes_of_the_suite_are_all_in_the_draw():
    drawn = {Tensor(random.Random(seed), 0, ROW_SHAPES).dtype.name for seed in range(300)}
    assert drawn == set(BY_NAME)
