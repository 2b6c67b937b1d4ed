#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""What the documents say that the verifier says, and the programs that they print: each refusal in
the words that are quoted, each cure and each idiom loaded and attached."""

import contextlib
import os
import re

import lib
import rst

HEADER = f"{lib.TOP}/tools/lib/bpf/bpf_qdisc.h"
BLOCKS = f"{lib.TOP}/tools/lib/bpf/bpf_qdisc_aqm.h"
MAPS = f"{lib.TOP}/tools/lib/bpf/bpf_rbtree.h"


def read(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


def named(name, test, *arguments):
    def run():
        test(*arguments)
    run.__name__ = name
    return run


def is_refused(each):
    """In these words, each of which is a line; tc prints the verifier's log."""
    with lib.link() as device:
        said = lib.refused("tc", *lib.qdisc(device, "add", "obj", rst.path(each.name)))
        lines = [line.strip() for line in said.splitlines()]
        for line in each.words:
            lib.true(line in lines, f"{line!r} is not a line of the end of the log:\n{said[-2000:]}")


def is_accepted(name, program):
    """A classifier of the object is attached beside."""
    with lib.link() as device:
        device.attach(rst.path(name))
        if 'SEC("tc")' in program:
            lib.run("tc", "qdisc", "add", "dev", device.a, "clsact")
            lib.run("tc", "filter", "add", "dev", device.a, "egress", "bpf", "da", "obj", rst.path(name), "sec", "tc")
        with lib.Sender(device.a) as sender:
            sender.send(1)
        for pin in re.findall(r"^} (\w+) SEC.*\n", program, re.M) if "LIBBPF_PIN_BY_NAME" in program else ():
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{lib.GLOBALS}/{pin}")


def other_words_are_the_verifiers():
    """refused.bpf.c has it say them."""
    section = rst.of_title("sch_bpf_refused", "Messages that need no example")
    annotations = re.findall(r'__refused\("(.*)"\)', read(f"{lib.TOP}/selftests/program/refused.bpf.c"))
    words = re.findall(r"^``(.*?)``  ", section, re.M)
    lib.true(len(words) > 5, f"{len(words)} rows")
    for each in words:
        lib.true(any(each in annotation for annotation in annotations), f"no program of refused.bpf.c is refused with {each!r}")


def each_helper_that_is_listed_can_be_called():
    """call_each_helper() of refused.bpf.c, which the verifier accepts, calls all of them."""
    table = rst.of_title("sch_bpf_idioms", "Helpers that a program may call").split("\n====")[1]
    listed = {name if name.startswith("bpf_") else f"bpf_map{name}" for name in re.findall(r"``(\w+)\(\)``", table)}
    lib.true(len(listed) > 15, f"{len(listed)} helpers")
    listed.discard("bpf_qdisc_socket")          # whose socket one of them takes
    (program,) = re.findall(r"^__accepted\nint call_each_helper\(.*?^}", read(f"{lib.TOP}/selftests/program/refused.bpf.c"), re.M | re.S)
    lib.equal(listed - set(re.findall(r"\b(\w+)\(", program)), set(), "helpers that no program calls")


def described(header):
    """The functions of a header, with what their comments say."""
    return dict(re.findall(r"^/\*\*\n \* (bpf_\w+)\(\) - (.*?)\*/", read(header), re.M | re.S))


def inline_functions():
    """Of the header, with the functions that they call."""
    for name, body in re.findall(r"^static __always_inline [^;{]*?(bpf_\w+)\([^{]*?\)\n{\n(.*?)^}", read(HEADER), re.M | re.S):
        yield name, {called.removesuffix("_skb") for called in re.findall(r"bpf_\w+(?=\()", body)}


def kernels_lists():
    """Functions that the kernel allows in one direction only."""
    text = read(f"{lib.TOP}/net/sched/sch_bpf_kfuncs.c")
    for what in ("enqueue", "dequeue"):
        (names,) = re.findall(rf"^BTF_SET_START\(sch_bpf_{what}_kfunc_ids\)\n(.*?)^BTF_SET_END", text, re.M | re.S)
        yield from ((name.removesuffix("_skb"), what) for name in re.findall(r"func, (\w+)", names))


def the_documents_agree_where_a_function_can_be_called():
    """The header, the reference and the kernel."""
    comments = described(HEADER)
    kernel = dict(kernels_lists())
    lib.equal(kernel.keys() - comments.keys(), set(), "functions that the header does not have")
    kernel.update((name, kernel[called]) for name, calls in inline_functions() for called in calls & kernel.keys())
    text = rst.of_title("sch_bpf", "Functions")
    lists = {what: rst.item(text, what) for what in ("enqueue and dequeue", "enqueue", "dequeue")}
    for name, comment in comments.items():
        where = re.search(r"^ \* In (enqueue|dequeue) programs", comment, re.M)
        lib.equal(where and where[1], kernel.get(name), f"the header says of {name}, against the kernel")
        if re.match(r"bpf_qdisc_(take|pop)_(?!class)", name):
            lib.contains(text, f"``{name[10:]}()``")
            name = re.sub(r"(take|pop)_.*", r"\1", name)
        for what, listed in lists.items():
            lib.equal(f"``{name}()``" in listed, what == (where[1] if where else "enqueue and dequeue"),
                      f"the reference lists {name} under {what}")


def the_documents_list_all_functions_that_take_a_packet():
    """Those that release a reference to it, for the verifier."""
    kernel = read(f"{lib.TOP}/net/sched/sch_bpf_kfuncs.c")
    takes = {name.removesuffix("_skb") for name in re.findall(r"^BTF_ID_FLAGS\(func, (\w+), .*KF_RELEASE", kernel, re.M)}
    head = read(HEADER).split("*/\n#ifndef", 1)[0]
    where = dict(kernels_lists())
    for what, listed in (("header", re.findall(r"^ \*\t(bpf_qdisc_\w+)\(\)\t.*?(?:\((\w+)\))?$", head, re.M)),
                         ("reference", re.findall(r"^``(bpf_qdisc_\w+)\(\)`` +(\w+)", rst.of_title("sch_bpf", "Who owns a packet"), re.M))):
        lib.equal({name: direction.replace("both", "") for name, direction in listed},
                  {name: where.get(name, "") for name in takes}, f"the {what}'s list")


def the_documents_list_the_members_of_the_context():
    """Those of the kernel's structure: the header, which is installed without it, and the reference."""
    (members,) = re.findall(r"^struct sch_bpf_ctx {\n(.*?)^};", read(f"{lib.TOP}/include/net/sch_bpf.h"), re.M | re.S)
    names = re.findall(r"(\w+);$", members, re.M)
    for what, listed in (("header", re.findall(r"^ \*\t(\w+)\t", read(HEADER).split("*/\n#ifndef", 1)[0], re.M)),
                         ("reference", re.findall(r"^``(\w+)``  ", rst.of_title("sch_bpf", "Programs"), re.M))):
        lib.equal(listed, names, f"the {what}'s list")


def the_reference_lists_all_errors():
    """That the header says functions return."""
    said = {error for comment in described(HEADER).values() for error in re.findall(r"-(E[A-Z0-9]+)", comment)}
    lib.equal(set(re.findall(r"^``-(E[A-Z0-9]+)``  ", rst.of_title("sch_bpf", "Functions"), re.M)), said, "errors")


def the_reference_lists_all_building_blocks():
    rows = re.findall(r"^``(bpf_\w+)\(\)``,?  ", rst.of_title("sch_bpf", "Building blocks"), re.M)
    lib.true(len(rows) > 10, f"{len(rows)} rows")
    lib.equal(sorted(rows), sorted(described(BLOCKS)), "functions of the table")


def the_reference_lists_what_policies_share():
    """What policy.h has that a policy may use."""
    text = read(f"{lib.POLICIES}/policy.h")
    names = re.findall(r"^#define (?!__|\w+\t)(\w+)\(", text, re.M) + re.findall(r"^static \S+ \S+ (?:\S+ )?\*?(\w+)\(", text, re.M)
    section = rst.of_title("sch_bpf", "Building blocks").split("``policy.h``", 1)[1]
    listed = [name for row in re.findall(r"^((?:``\w+\(\)``(?:, )?)+)", section, re.M) for name in re.findall(r"\w+", row)]
    lib.true(len(names) > 10, f"{len(names)} names")
    lib.equal(sorted(listed), sorted(names), "names of the table")


def declarations(text, pattern):
    """Without the names of parameters."""
    return sorted(re.sub(r"\w+(?=[,)])", "", " ".join(found.split())) for found in re.findall(pattern, text, re.M | re.S))


def what_is_printed_for_senders_is_run_by_a_test():
    (program,) = re.findall(r"^.. code-block:: c\n\n((?:\t.*\n|\n)+)", rst.of_title("sch_bpf", "Sending with io_uring"), re.M)
    lib.contains(read(f"{lib.TOP}/selftests/io_uring/send.c"), re.sub(r"^\t", "", program.strip("\n"), flags=re.M))


def functions_of_packet_maps():
    return {name for name, comment in described(MAPS).items()
            if re.search(r"^ \* @map: (any ordered map|an ordered map of packets)$", comment, re.M)}


def the_documents_list_all_functions_of_ordered_maps():
    """And the reference of the qdisc those that maps of packets have."""
    document = read(f"{lib.TOP}/Documentation/bpf/map_rbtree.rst")
    declared = declarations(read(MAPS), r"^extern ([^()]*\([^()]*\)) __ksym;$")
    lib.true(len(declared) > 10, f"{len(declared)} declarations")
    lib.equal(declarations(document, r"^\t(\w[^\n(]*\bbpf_rbtree_map_\w+\([^()]*\));$"), declared, "declarations")
    listed = rst.item(rst.of_title("sch_bpf", "Functions"), "both, and other program types, of ``<bpf/bpf_rbtree.h>``")
    lib.equal(set(re.findall(r"``(\w+)\(\)``", listed)), functions_of_packet_maps(), "functions for maps of packets")


def each_function_is_used_by_an_example():
    """In the tutorial, in an idiom, or in a policy that is named there."""
    rows = re.findall(r"^(``bpf_.*?``)  +``(.*?)``$", rst.of_title("sch_bpf_idioms", "Functions that have no example here"), re.M)
    lib.true(len(rows) > 10, f"{len(rows)} rows")
    used = {word for _, program, *_ in (*rst.idioms(), *rst.steps()) for word in re.findall(r"\w+", program)}
    for functions, path in rows:
        words = set(re.findall(r"\w+", read(f"{lib.TOP}/{path}")))
        named = set(re.findall(r"``(\w+)\(\)``", functions))
        lib.equal((named - words, named & used), (set(), set()), f"not in {path}, or in the documents")
        used |= named
    for header in (HEADER, BLOCKS):
        lib.equal(described(header).keys() - used, set(), "functions without an example")


# Of what policies call, and why
WITHOUT_A_COST = {"pop": "once a run: of those that deliver a packet it is the base", "cb": "note is this, as a type",
                  "filter": "classify, and what follows from it", "cut": "segment, where a comparison says so",
                  "tx_time_most": "tx_time, and a comparison", "time_sub": "as much as time_add",
                  "aqm_drops_counted": "aqm_drops, and an addition",
                  **{name: "a comparison or two" for name in ("is_full", "exceeds", "begins_anew", "socket")}}


def the_cost_table_has_all_functions():
    """Of the qdisc, the building blocks, and of ordered maps those for packets: each has a row, or one with another
    that undoes it."""
    names = {re.sub(r"bpf_((qdisc|skb(_tc)?|rbtree_map)_)?", "", name)
             for name in described(HEADER).keys() | described(BLOCKS).keys() | functions_of_packet_maps()}
    one = "|".join(sorted(names, key=len, reverse=True))
    rows = re.findall(r"^\| (\w+(?:, \w+)?) \| -?\d+ \|$", read(f"{lib.TOP}/bench/README.md"), re.M)
    lib.true(len(rows) > 40, f"{len(rows)} rows")
    found = [re.fullmatch(rf"({one})(?:(?:, |_)({one}))?", row) for row in rows]
    lib.equal(names - {name for row in found if row for name in row.groups()}, set(WITHOUT_A_COST), "functions without a row")


def policies_are_as_long_as_said():
    """All lines, and those that are neither comments nor empty nor name a header. None has an epoch."""
    with open(f"{lib.POLICIES}/README.md", encoding="utf-8") as file:
        said = re.findall(r"^\| \[`\w+`\]\((\S+\.bpf\.c)\).*?\| (\d+), (\d+) \|", file.read(), re.M)
    lib.equal(len(said), 3, "policies")
    for path, *lines in said:
        text = read(f"{lib.POLICIES}/{path}")
        lib.true("generation" not in text and "begins_anew" not in text, f"{path} asks for the generation")
        code = re.sub(r"/\*.*?\*/|//[^\n]*", "", text, flags=re.S).splitlines()
        lib.equal([int(count) for count in lines],
                  [len(text.splitlines()), sum(bool(line.strip()) and not line.startswith("#include") for line in code)], path)


REFUSED = rst.refused()
IDIOMS = [(f"idiom{number}", title, program) for number, (title, program) in enumerate(rst.idioms(), 1)]


def steps_are_as_short_as_said():
    """Lines that each adds, with those that are empty or a brace."""
    (said,) = re.findall(r"Each step adds (\d+) to (\d+) lines", rst.text_of("sch_bpf_tutorial"))
    added = [len(re.findall(r"^\+", diff, re.M)) for _, _, diff in rst.steps()]
    lib.equal([len(added), min(added), max(added)], [5, *map(int, said)], "steps, fewest and most lines")


def drawings_are_of_the_programs_that_are_printed():
    for path, program in rst.drawings():
        lib.true(program in read(path), f"{os.path.basename(path)} is of another program: scripts/draw-tutorial")


def there_are_twelve():
    lib.equal(len(REFUSED), 12, "refusals")


lib.main(there_are_twelve,
         *(named(f"refused: {each.title}", is_refused, each) for each in REFUSED),
         *(named(f"cured: {each.title}", is_accepted, f"{each.name}_cured", each.cured) for each in REFUSED),
         *(named(f"idiom: {title}", is_accepted, name, program) for name, title, program in IDIOMS),
         other_words_are_the_verifiers,
         each_helper_that_is_listed_can_be_called,
         the_documents_agree_where_a_function_can_be_called,
         the_documents_list_all_functions_that_take_a_packet,
         the_documents_list_the_members_of_the_context,
         the_reference_lists_all_errors,
         the_reference_lists_all_building_blocks,
         the_reference_lists_what_policies_share,
         what_is_printed_for_senders_is_run_by_a_test,
         the_documents_list_all_functions_of_ordered_maps,
         each_function_is_used_by_an_example,
         the_cost_table_has_all_functions,
         policies_are_as_long_as_said,
         steps_are_as_short_as_said,
         drawings_are_of_the_programs_that_are_printed)
