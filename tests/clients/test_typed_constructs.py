"""What people write into a .proto: accepted, complete in reflection, called by stubs that protoc makes of it."""

import pytest

from support.typed import Service, assert_same, compiled, contract, graph, message_class, package

ADD2 = graph("double[N] x, double[N] y", "double[N] z", "z = Add(x, y)")
SUM = graph("double[N,2] xy", "double[N] z", "z = MatMul(xy, w)", constants="double[2] w = {1, 1}")
VALUES = [({"x": 3, "y": 4}, {"z": 7})]
REST = "message B { double z = 1; }"

# The 24 of which Acumos' scanner reads a part wrong or not at all; protoc accepts each.
SCANNER = {
    "plain": "message A {\n  double x = 1;\n  double y = 2;\n}\n" + REST,
    "on-one-line": "message A { double x = 1; double y = 2; } message B { double z = 1; }",
    "several-rpcs": "service S { rpc Call(A) returns (B); rpc Again(A) returns (B); rpc Third (A) returns (B) ; }"
    "message A { double x = 1; double y = 2; }" + REST,
    "deprecated": "message A { double x = 1 [deprecated=true]; double y = 2 [ deprecated = false ]; }" + REST,
    "comment-between-messages": "// two numbers\nmessage A { double x = 1; double y = 2; }\n// one\n" + REST,
    "optional": "message A { optional double x = 1; optional double y = 2; } message B { optional double z = 1; }",
    "no-space-before-brace": "message A{ double x = 1; double y = 2; }message B{double z=1;}",
    "comment-with-the-word-message": "// a message about things, and an enum of others\nmessage A { "
    "double x = 1; double y = 2; }"
    "\n// message Nothing { double q = 1; }\n/* enum Also { NOTHING = 0; } */" + REST,
    "trailing-comments": "message A {\n  double x = 1; // plain note\n  double y = 2; /* another; note = 3; */\n}\n"
    "message B { double z = 1; // the sum\n}",
    "map": "message A { double x = 1; double y = 2; map<string,double> m = 3 [(baton.ignore) = true]; }" + REST,
    "oneof": "message A { oneof k { double x = 1; } oneof l { double y = 2; } }" + REST,
    "streams": "service S { rpc Call(A) returns (B); rpc Both (stream A) returns (stream B); }"
    "message A { double x = 1; double y = 2; }" + REST,
    "rpc-with-braces": "service S { rpc Call (A) returns (B) {} rpc Other(A) returns(B){}; }"
    "message A { double x = 1; double y = 2; }" + REST,
    "qualified-types": "service S { rpc Call (PACKAGE.A) returns (.PACKAGE.B); }"
    "message A { double x = 1; double y = 2; }" + REST,
    "nested-message": "service S { rpc Call(A) returns (B); } message A { message In { double x = 1; "
    "double y = 2; } In in = 1; }"
    + REST,
    "nested-enum": "message A { enum K { OFF = 0; ON = 1; } double x = 1; double y = 2; "
    "K k = 3 [(baton.ignore) = true]; }" + REST,
    "reserved": 'message A { reserved 5; reserved 7 to 9, 100 to max; reserved "old", "older"; double x = 1; '
    'double y = 2; }' + REST,
    "field-enum-code": "message A { double enum_code = 1; double message_len = 2; }" + REST,
    "field-message-len": "message A { double message_len = 1; double y = 2; }" + REST,
    "field-repeated-count": "message A { double repeated_count = 1; double optional_x = 2; }" + REST,
    "empty-message": "message Empty {} message Empty2 { } message A { double x = 1; double y = 2; }" + REST,
    "imported-type": "message A { double x = 1; double y = 2; "
    "google.protobuf.Timestamp at = 3 [(baton.ignore) = true]; }" + REST,
    "several-services": "service S { rpc Call(A) returns (B); } service T { rpc Other(A) returns (B); } "
    "service U { rpc More(A) returns (B); }"
    "message A { double x = 1; double y = 2; }" + REST,
    "service-options": "service S { option deprecated = true; rpc Call(A) returns (B) { option deprecated = true; "
    "option idempotency_level = NO_SIDE_EFFECTS; } } message A { double x = 1; double y = 2; }" + REST,
}  # fmt: skip
OTHERS_SETTLE = {
    "nested-message": {"in": {"x": 3, "y": 4}},
    "field-enum-code": {"enum_code": 3, "message_len": 4},
    "field-message-len": {"message_len": 3, "y": 4},
    "field-repeated-count": {"repeated_count": 3, "optional_x": 4},
}

# Ways of writing that are found in public projects.
WRITTEN = {
    "keywords-as-names": (
        "service service { rpc rpc(message) returns (enum) ; } message message { double syntax = 1; "
        "double import = 2; } "
        "message enum { double returns = 1; }", {"syntax": 3, "import": 4}, {"returns": 7}, "rpc"),
    "types-as-names": ("message Q { double double = 1; double string = 2; } message A { double bool = 1; }",
                       {"double": 3, "string": 4}, {"bool": 7}, "Call"),
    "python-keywords": ("message Q { double from = 1; double class = 2; } message A { double None = 1; }",
                        {"from": 3, "class": 4}, {"None": 7}, "Call"),
    "hexadecimal-and-octal-numbers": ("message Q { double x = 0x10; double y = 017; } message A { double z = 0x1; }",
                                      {"x": 3, "y": 4}, {"z": 7}, "Call"),
    "numbers-out-of-order-and-large": (
        "message Q { double x = 536870911; double y = 18999; } message A { double z = 20000; }",
        {"x": 3, "y": 4}, {"z": 7}, "Call"),
    "semicolons": (";;service S { ; rpc Call(Q) returns (A) { ; } ; };; message Q { ; double x = 1;; double y = 2; };"
                   "message A { double z = 1; };", {"x": 3, "y": 4}, {"z": 7}, "Call"),
    "options-over-lines": (
        "message Q { double x = 1 [\n  deprecated = true, // old\n  json_name = 'ex'\n]; "
        "double y = 2 [json_name=\"w\" \"hy\"]; }"
        "message A { double z = 1; }", {"x": 3, "y": 4}, {"z": 7}, "Call"),
    "file-options": (
        'option java_package = "com.example"; option java_multiple_files = true; '
        'option go_package = "example.com/x;x"; '
        "option cc_enable_arenas = true; option optimize_for = SPEED; option csharp_namespace = 'X.Y'; "
        'option objc_class_prefix = "XYZ"; option php_namespace = "X\\\\Y"; option swift_prefix = "S"; '
        "message Q { option deprecated = true; double x = 1; double y = 2; } message A { double z = 1; }",
        {"x": 3, "y": 4}, {"z": 7}, "Call"),
    "enum-alias": (
        "enum K { option allow_alias = true; UNKNOWN = 0; NONE = 0; A_LOT = 1 [deprecated = true]; NEGATIVE = -1; "
        "reserved 5 to 9; reserved 'OLD'; } message Q { double x = 1; double y = 2; K k = 3 [(baton.ignore) = true]; } "
        "message A { double z = 1; }", {"x": 3, "y": 4, "k": "NONE"}, {"z": 7}, "Call"),
    "comments-everywhere": (
        "/* a */service/* b */S/* c */{// d\nrpc/**/Call(/* e */Q/* f */)returns/* g */(A)// h\n;/* i */}// j\n"
        "/** k\n * l */message Q/**/{/* m */double/* n */x/* o */=/* p */1/* q */;// r\ndouble y=2;}message "
        "A{double z=1;}//",
        {"x": 3, "y": 4}, {"z": 7}, "Call"),
    "nested-four-deep-and-referred-to-from-outside": (
        "service S { rpc Call(Outer.Middle.Inner.Q) returns (Outer.A); } message Outer { message Middle { "
        "message Inner { "
        "message Q { double x = 1; double y = 2; } } } message A { double z = 1; } }",
        {"x": 3, "y": 4}, {"z": 7}, "Call"),
    "names-that-shadow": (
        "service S { rpc Call(Q) returns (A); } message Q { message A { double x = 1; double y = 2; } A a = 1; } "
        "message A { double z = 1; }", {"a": {"x": 3, "y": 4}}, {"z": 7}, "Call"),
    "all-imports": (
        "message Q { double x = 1; google.protobuf.DoubleValue y = 2; "
        "google.protobuf.Struct s = 3 [(baton.ignore) = true]; "
        "google.protobuf.Any any = 4 [(baton.ignore) = true]; google.protobuf.Empty e = 5 [(baton.ignore) = true]; "
        "google.protobuf.Timestamp t = 6 [(baton.ignore) = true]; } message A { double z = 1; }",
        {"x": 3, "y": 4, "t": "2026-01-01T00:00:00Z", "s": {"a": [1, None, "x"]}}, {"z": 7}, "Call"),
    "oneof-of-many-types": (
        "message Q { double x = 1; double y = 2; oneof rest { string s = 3 [(baton.ignore) = true]; "
        "bytes b = 4 [(baton.ignore) = true]; Q q = 5 [(baton.ignore) = true]; } } message A { double z = 1; }",
        {"x": 3, "y": 4, "s": "x"}, {"z": 7}, "Call"),
    "recursion-between-messages-ignored": (
        "message Q { double x = 1; double y = 2; Tree tree = 3 [(baton.ignore) = true]; } message Tree { "
        "repeated Tree left = 1; "
        "map<string, Forest> more = 2; } message Forest { Tree first = 1; } message A { double z = 1; }",
        {"x": 3, "y": 4, "tree": {"left": [{}, {"more": {"a": {}}}]}}, {"z": 7}, "Call"),
    "unused-messages-enums-and-maps": (
        "message Q { double x = 1; double y = 2; } message A { double z = 1; } message M { map<bool, bytes> a = 1; "
        "map<int32, M> b = 2; map<sfixed64, E> c = 3; repeated E e = 4 [packed = false]; } enum E { ZERO = 0; "
        "MIN = -2147483648; "
        "MAX = 0x7fffffff; }", {"x": 3, "y": 4}, {"z": 7}, "Call"),
    "package-deep-in-a-name": (
        "service Predict_Service2 { rpc predict_One(Q_1) returns (A__2); } message Q_1 { double X = 1; "
        "double y_ = 2; } "
        "message A__2 { double z1 = 1; }", {"X": 3, "y_": 4}, {"z1": 7}, "predict_One"),
    "tensorflow-serving-style": (
        "service PredictionService { rpc Predict(PredictRequest) returns (PredictResponse); }\n"
        "// See prediction_service.proto.\nmessage ModelSpec { string name = 1; oneof version_choice { "
        "google.protobuf.Int64Value version = 2; string version_label = 4; } string signature_name = 3; }\n"
        "message PredictRequest { ModelSpec model_spec = 1 [(baton.ignore) = true]; double x = 2; double y = 3; }\n"
        "message PredictResponse { ModelSpec model_spec = 2 [(baton.ignore) = true]; double outputs = 1; }",
        {"model_spec": {"name": "m", "version": "1"}, "x": 3, "y": 4}, {"outputs": 7}, "Predict"),
    "greeter-style": (
        "// The greeting service definition.\nservice Greeter {\n  // Sends a greeting\n  rpc SayHello "
        "(HelloRequest) returns (HelloReply) {}\n\n"
        "  rpc SayHelloStreamReply (HelloRequest) returns (stream HelloReply) {}\n}\n"
        "// The request message containing the user's name.\nmessage HelloRequest {\n  double name = 1;\n  "
        "double last = 2;\n}\n"
        "// The response message containing the greetings\nmessage HelloReply {\n  double message = 1;\n}",
        {"name": 3, "last": 4}, {"message": 7}, "SayHello"),
    "grouped-features": (
        "message Q { Meta meta = 1 [(baton.ignore) = true]; Features features = 2; } message Meta { "
        "string id = 1; map<string, string> tags = 2; "
        "repeated string path = 3; } message Features { double first = 1; double second = 2; } message A { "
        "double score = 1; "
        "Meta meta = 2 [(baton.ignore) = true]; }",
        {"meta": {"id": "x", "tags": {"a": "b"}}, "features": {"first": 3, "second": 4}}, {"score": 7}, "Call"),
}  # fmt: skip


def works(server, admin, at: str, body: str, request: dict, wanted: dict, method: str, model=SUM) -> Service:
    mine = package()
    source = contract(body.replace("PACKAGE", mine), mine)
    admin.must_push(at, model, contract=source)
    service = Service(server, at, mine)
    assert service.source() == service.source("1") == source.encode()
    theirs = service.call_all(method, request)
    picked = {key: theirs[key] for key in wanted}
    assert_same(picked, wanted)
    reflection_is_complete(service, source)
    return service


def reflection_is_complete(service: Service, source: str) -> None:
    """Services, methods and all that they refer to are as protoc has them."""
    pool = compiled(source)
    file = pool.FindFileByName("contract.proto")
    assert sorted(service.services) == sorted(file.services_by_name)
    for name, own in file.services_by_name.items():
        theirs = service.services[name]
        assert [method.name for method in theirs.methods] == [method.name for method in own.methods]
        for method in own.methods:
            other = theirs.methods_by_name[method.name]
            for mine, seen in ((method.input_type, other.input_type), (method.output_type, other.output_type)):
                assert fields(mine) == fields(seen), method.full_name
            assert (method.client_streaming, method.server_streaming) == (
                other.client_streaming,
                other.server_streaming,
            )
    for name, message in file.message_types_by_name.items():
        assert fields(message) == fields(service.pool.FindMessageTypeByName(message.full_name)), name
    for enum in file.enum_types_by_name.values():
        seen = service.pool.FindEnumTypeByName(enum.full_name)
        assert [(value.name, value.number) for value in enum.values] == [
            (value.name, value.number) for value in seen.values
        ]


def fields(message, seen=()) -> list:
    """A message's fields as far down as they go."""
    if message.full_name in seen:
        return [message.full_name]
    below = (*seen, message.full_name)
    return [message.full_name] + [
        (field.name, field.number, field.type, field.is_repeated, field.json_name, field.has_presence,
         fields(field.message_type, below) if field.message_type else field.enum_type and field.enum_type.full_name)
        for field in message.fields
    ]  # fmt: skip


@pytest.mark.parametrize("case", SCANNER)
def test_what_acumos_scanner_stumbles_over(server, admin, name, case):
    body = SCANNER[case]
    if "service " not in body:
        body = "service S { rpc Call(A) returns (B); }\n" + body
    works(server, admin, name, body, OTHERS_SETTLE.get(case, {"x": 3, "y": 4}), {"z": 7}, "Call")


@pytest.mark.parametrize("case", WRITTEN)
def test_what_people_write(server, admin, name, case):
    body, request, wanted, method = WRITTEN[case]
    works(server, admin, name, body, request, wanted, method)


def test_there_are_24_of_them():
    assert len(SCANNER) == 24


def test_every_scalar_type_is_in_reflection_and_callable(typed):
    kinds = ("double", "float", "int32", "int64", "uint32", "uint64", "sint32", "sint64", "fixed32", "fixed64",
             "sfixed32", "sfixed64", "bool")  # fmt: skip
    width = len(kinds)
    model = graph(f"double[N,{width}] X", "double[N] Y", "Y = MatMul(X, w)",
                  constants=f"double[{width}] w = {{{', '.join(str(2**i) for i in range(width))}}}")  # fmt: skip
    body = (
        "message Q { "
        + " ".join(f"{kind} f{i} = {i + 1};" for i, kind in enumerate(kinds))
        + " } message A { double y = 1; }"
    )
    service = typed(model, body)
    service.check("Call", {f"f{i}": True if kind == "bool" else 1 for i, kind in enumerate(kinds)}, {"y": 2**width - 1})
    for i, kind in enumerate(kinds):
        service.check("Call", {f"f{i}": True if kind == "bool" else 1}, {"y": 2**i})


def test_comments_stay_in_the_contract_that_is_read_back_and_stubs_are_made_of_it(typed):
    body = (
        "// größe 🦊\n/* two\nlines */ message Q { double x = 1; double y = 2; }\n// end\nmessage A { double z = 1; }"
    )
    service = typed(SUM, body)
    assert "größe 🦊" in service.source().decode()
    service.check("Call", {"x": 1, "y": 2}, {"z": 3})


def test_a_package_may_be_left_out(server, admin, name):
    service_name = f"Alone{name.replace('-', '')}"
    source = (
        f'syntax = "proto3"; service {service_name} {{ rpc Call(Q{service_name}) returns (A{service_name}); }} '
        f"message Q{service_name} {{ double x = 1; double y = 2; }} message A{service_name} {{ double z = 1; }}"
    )
    admin.must_push(name, SUM, contract=source)
    service = Service(server, name, "")
    service.check("Call", {"x": 1, "y": 2}, {"z": 3})
    assert service.url("Call").endswith(f"/{service_name}/Call")


def test_the_largest_contract_that_is_allowed_compiles_in_time(server, admin, name):
    """500 messages, 5,000 fields."""
    mine = package()
    filler = "".join(
        f"message M{index} {{ " + " ".join(f"double f{field} = {field + 1};" for field in range(10)) + " }\n"
        for index in range(497)
    )
    body = (
        "service S { rpc Call(Q) returns (A); } message Q { double x = 1; double y = 2; } message A { double z = 1; }\n"
    )
    admin.must_push(name, SUM, contract=contract(body + filler, mine))
    Service(server, name, mine).check("Call", {"x": 1, "y": 2}, {"z": 3})


def test_stubs_of_the_contract_run_streams_too(typed):
    body = SCANNER["streams"].replace(
        "rpc Both", "rpc Up(stream A) returns (B); rpc Down(A) returns (stream B); rpc Both"
    )
    body = (
        body.replace("rpc Up(stream A) returns (B)", "rpc Up(stream A) returns (Bs)")
        + "message Bs { repeated B all = 1; }"
    )
    service = typed(SUM, body)
    messages, stubs = service.generated
    stub = stubs.SStub(service.channel)
    numbers = [messages.A(x=index, y=1) for index in range(5)]
    assert [answer.z for answer in stub.Both(iter(numbers), timeout=30)] == [1, 2, 3, 4, 5]
    assert [answer.z for answer in stub.Down(numbers[3], timeout=30)] == [4]
    assert [answer.z for answer in stub.Up(iter(numbers), timeout=30).all] == [1, 2, 3, 4, 5]


def test_two_models_of_one_package_with_messages_of_their_own(server, admin, name):
    mine = package()
    body = "service {0} {{ rpc Call(Q{0}) returns (A{0}); }} message Q{0} {{ double x = 1; double y = 2; }} "
    body += "message A{0} {{ double z = 1; }}"
    for index, model in enumerate((SUM, ADD2)):
        admin.must_push(f"{name}-{index}", model, contract=contract(body.format("VW"[index]), mine))
    both = Service(server, f"{name}-0", mine)
    assert sorted(both.services) == ["V", "W"]
    for index, service in enumerate("VW"):
        assert both.call("reflection", f"{service}/Call", {"x": 3, "y": 4}) == {"z": 7}
        assert both.call("json", f"{service}/Call", {"x": index}) == {"z": index}


def test_two_models_with_the_same_message_names(typed):
    one = typed(SUM, SCANNER["plain"].replace("message A", "service S { rpc Call(A) returns (B); } message A", 1))
    two = typed(ADD2, SCANNER["plain"].replace("message A", "service S { rpc Call(A) returns (B); } message A", 1))
    for service in (one, two):
        service.check("Call", *VALUES[0])
    file = message_class(one.method("Call").input_type).DESCRIPTOR.file
    assert file.name == f"{one.model}.proto", "a file is named after its model"
