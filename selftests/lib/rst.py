# SPDX-License-Identifier: GPL-2.0
"""The programs that are printed in the documents for authors of policies. The documents are
their only source: selftests/run compiles them from there, and tests load and run them.

    refused N, and cured    sch_bpf_refused.rst: of each section a program in C, the verifier's words,
                            and a diff that cures it
    idiom N                 sch_bpf_idioms.rst: all C of a section
    step N                  sch_bpf_tutorial.rst: each is a diff of the one before, the first one
                            of the C that precedes it

The C that precedes the first section of the other two is what all of their programs begin with.
A program that is only one of enqueue and dequeue gets the other one here, that of a FIFO."""

import collections
import hashlib
import os
import re

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
DOCUMENTS = f"{TOP}/Documentation/networking"
OUT = f"{TOP}/build/selftests/doc"

OTHERS = {"enqueue": "bpf_qdisc_push(ctx, &pkts, &(__u64){ 0 }, ctx->skb)", "dequeue": "bpf_qdisc_pop(ctx, &pkts)"}
LICENSE = 'char LICENSE[] SEC("license") = "GPL";\n'

Section = collections.namedtuple("Section", "title blocks")     # (language, text), "" for a literal block
Refused = collections.namedtuple("Refused", "name title program words cured")


def text_of(name):
    with open(f"{DOCUMENTS}/{name}.rst", encoding="ascii") as file:
        return file.read()


def of_title(name, title):
    """The text of a section, up to the next title of any level."""
    body = text_of(name).split(f"\n{title}\n", 1)[1].split("\n", 1)[1]
    return re.split(r"^.+\n([=-])\1{3,}$", body, maxsplit=1, flags=re.M)[0]


def item(text, name):
    """The item of a list that begins with this name, on one line."""
    (found,) = re.findall(rf"^\* {name}: (.*?)(?=^\* |^\S|\Z)", text, re.M | re.S)
    return " ".join(found.split())


def sections(name):
    """Of a document, in their order; the first has the document's title."""
    lines = text_of(name).split("\n")
    found, language, block = [], None, []
    for before, line in zip(["", *lines], lines):
        if language is not None and (not line or line.startswith("\t")):
            block.append(line[1:])
            continue
        if language is not None and found:
            found[-1].blocks.append((language, "\n".join(block).strip("\n") + "\n"))
        language, block = None, []
        if before and re.fullmatch(r"([=~-])\1*", line) and len(line) == len(before):
            found.append(Section(before, []))
        elif line.startswith(".. code-block:: "):
            language = line.split()[-1]
        elif line.endswith("::") and not line.startswith(".. "):
            language = ""
    return found


def of(section, *languages):
    """The blocks in these languages."""
    return [text for language, text in section.blocks if language in languages]


def patched(program, diff):
    """A diff here has no numbers: hunks, between @@, are found by their lines, each behind the one before. Lines
    that stay begin with no space, for that would be one before a tab."""
    done, rest = "", "\n" + program
    for hunk in re.split(r"^@@.*\n", diff, flags=re.M):
        lines = hunk.strip("\n").split("\n")
        old, new = ("".join("\n" + (line[1:] if line[:1] == sign else line) for line in lines if line[:1] != other)
                    for sign, other in ("-+", "+-"))
        if not old or (rest.count(old + "\n")) != 1:
            raise ValueError(f"this hunk does not fit at one place:\n{hunk}\nof\n{rest}")
        before, rest = rest.split(old + "\n")
        done, rest = done + before + new, "\n" + rest
    return (done + rest)[1:]


def whole(preamble, program):
    """With all that a file needs."""
    more = [f'SEC("qdisc/{what}")\nint other(struct sch_bpf_ctx *ctx)\n{{\n\treturn {body};\n}}\n'
            for what, body in OTHERS.items() if f'SEC("qdisc/{what}")' not in program]
    return "\n".join([preamble, program, *more, LICENSE])


def refused():
    head, *rest = sections("sch_bpf_refused")
    (preamble,) = of(head, "c")
    found = []
    for section in rest:
        if not of(section, "c"):
            continue
        (program,), (words,), (cure,) = of(section, "c"), of(section, ""), of(section, "diff")
        found.append(Refused(f"refused{len(found) + 1}", section.title, whole(preamble, program),
                             words.splitlines(), whole(preamble, patched(program, cure))))
    return found


def idioms():
    """Title and program of each."""
    head, *rest = sections("sch_bpf_idioms")
    (preamble,) = of(head, "c")
    return [(section.title, whole(preamble, "\n".join(of(section, "c")))) for section in rest if of(section, "c")]


def idiom(title):
    """Its object."""
    (number,) = (number for number, (found, _) in enumerate(idioms(), 1) if found == title)
    return path(f"idiom{number}")


def steps():
    """Title, program and diff of each."""
    head, *rest = sections("sch_bpf_tutorial")
    (program,) = of(head, "c")
    found = []
    for section in rest:
        (diff,) = of(section, "diff")
        program = patched(program, diff)
        found.append((section.title, program, diff))
    return found


def drawings():
    """File of each drawing of the tutorial, and what it says of the program that it was drawn of: the
    fifth is of the fourth step again, changed in place."""
    programs = [program for _, program, _ in steps()[:4]]
    return [(f"{DOCUMENTS}/sch_bpf_step{number}.svg", f"<!-- of a program with SHA-256 {hashlib.sha256(program.encode()).hexdigest()} -->")
            for number, program in enumerate([*programs, programs[-1]], 1)]


def path(name):
    return f"{OUT}/{name}.bpf.o"


def write():
    """All of them, where they have changed. Returns the objects that are to be made."""
    programs = {}
    for each in refused():
        programs.update({each.name: each.program, f"{each.name}_cured": each.cured})
    programs.update((f"idiom{number}", program) for number, (_, program) in enumerate(idioms(), 1))
    programs.update((f"step{number}", program) for number, (_, program, _) in enumerate(steps(), 1))
    os.makedirs(OUT, exist_ok=True)
    for name, program in programs.items():
        source = f"{OUT}/{name}.bpf.c"
        with open(source, "a+", encoding="ascii") as file:
            file.seek(0)
            if file.read() != program:
                file.truncate(0)
                file.write(program)
    return [path(name) for name in programs]
