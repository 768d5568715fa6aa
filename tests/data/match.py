"""Writes match.tsv: what Python's PurePosixPath.match answers, for the matching table of src/filter.rs.

    python3 tests/data/match.py > tests/data/match.tsv

A row is PATTERN <TAB> PATH <TAB> 0 or 1. Left out on purpose: `**`, which autoftp extends; `[^a]` and `[a/b]`, where
Python's fnmatch and globset differ; an unclosed `[`; patterns that name nothing, which Python refuses; and
backslashes, which Windows reads as `/`.
"""

from pathlib import PurePosixPath

PATTERNS = """
*.py|*.mpy|*.p?|*.*|*|?|??|?.py|??.py|a*.py|*a.py|*a*|*.p*y|a*b*c.py|.*|.*.py|*.
main.py|lib/util.py|lib/*.py|*/*.py|*/*/*.py|*/*/*/*.py|lib/*|lib/*/*|*lib/*|*main.py|?ib/*.py|li?/u*.py|test/*|lib|lib/sub
[abc].py|[a-c].py|[!a].py|[!a-c]*.py|[0-9]*|*[0-9].py|[a-]b.py|[-a]b.py|[]].py|[!]].py|[.]*|[!.]*|[*].py|[?].py|[[].py
lib[0-9]/*.py|[!l]ib/*.py|[a-c][0-9].py|x[!0-9][!0-9].py|[A-Z]*.py|MAIN.PY|Main.py|*.PY
./*.py|./main.py|lib/./util.py|lib//util.py|lib/*.py/|lib/|lib//|*.py/.|.//lib//*.py|test/*/|./lib/./sub/
{a,b}.py|*.{py,mpy}|{*}.py|{|}|a{b}c.py|lib/{a,b}.py|{}
/*.py|/main.py|/lib/*.py|/*|//lib/util.py
my file.py|* *.py|*\u00a0*|my*file.py| lead.py|trail .py|? ?.py
\u00fcber.py|\u00fc*.py|?ber.py|[\u00fc\u00f6].py|[!\u00fc].py|\u65e5\u672c*/*.py|??\u8a9e.py|*.\u00e9|e\u0301.py
a+b.py|a.b.py|a(b).py|a^b.py|$HOME.py|a|b.py|#x#|*~|.#*|*.sw?|4913|-x.py|~/*.py|@*.py|..a|a..py
"""

PATHS = """
main.py|a.py|b.py|d.py|ab.py|abc.py|aXbYc.py|x12.py|xab.py|a1.py|9.py|README|Main.py|MAIN.PY|m.mpy|a.pyc|a.p|a.
lib/util.py|lib/a.py|lib/sub/util.py|lib/sub/deep/z.py|mylib/a.py|lib1/b.py|test/a.py|test/deep/z.py|a/lib/util.py|lib/sub
.py|.hidden.py|.git/config|lib/.hidden.py|.hid/a.py|..a|a..py
-b.py|ab.py|].py|*.py|?.py|[.py|[a].py
{a,b}.py|a.{py,mpy}|{x}.py|{|}|a{b}c.py|lib/{a,b}.py|{}
my file.py| lead.py|trail .py|a b.py|my dir/my file.py|a\u00a0b.py
\u00fcber.py|\u00fc.py|\u65e5\u672c/a.py|\u65e5\u672c\u8a9e.py|x.\u00e9|e\u0301.py|\u00e9.py
a+b.py|a.b.py|a(b).py|a^b.py|$HOME.py|#x#|x~|.#x|.a.swp|4913|-x.py|~/a.py|@home.py
"""


def words(text):
    return [word for line in text.strip("\n").split("\n") for word in line.split("|") if word]


def main():
    patterns, paths = words(PATTERNS), words(PATHS)
    paths = list(dict.fromkeys(paths))
    for row, pattern in enumerate(dict.fromkeys(patterns)):
        answers = [(path, PurePosixPath(path).match(pattern)) for path in paths]
        # Every match, and of the many misses each seventh, another one in each row.
        for column, (path, matches) in enumerate(answers):
            if matches or (row + column) % 7 == 0:
                print(pattern, path, int(matches), sep="\t")


main()
