"""The changes that `mutants.py` makes: all bounds of the code, and nothing else."""

from __future__ import annotations

from tests.fuzz.mutants import EQUIVALENT, FILES, SOURCE, mutants

CODE = """
int
taken(void)
{
#define SIX 6
enum { ONE = 1 };
static const double LIMIT = 2;
if (from->size <= 12 && at >= MOST_SETS) /* 4 < 5 */
    text[0] = "7" << 0x1F | 8u;
has_any = 1;
return 0;
"""


def test_each_bound_is_changed_by_one() -> None:
    changed = [mutant.line(CODE) for mutant in mutants(CODE)]
    assert changed == [
        f"taken: {line}"
        for line in (
            "if (from->size < 12 && at >= MOST_SETS) /* 4 < 5 */",
            "if (from->size <= 12 && at > MOST_SETS) /* 4 < 5 */",
            "if (from->size <= 13 && at >= MOST_SETS) /* 4 < 5 */",
            "if (from->size <= 11 && at >= MOST_SETS) /* 4 < 5 */",
            'text[1] = "7" << 0x1F | 8u;',
            "if (from->size <= 12 && at >= (MOST_SETS + 1)) /* 4 < 5 */",
            "if (from->size <= 12 && at >= (MOST_SETS - 1)) /* 4 < 5 */",
        )
    ]


def test_what_counts_as_equivalent_is_still_there() -> None:
    texts = [(SOURCE / name).read_text() for name in FILES]
    made = {mutant.line(text) for text in texts for mutant in mutants(text)}
    assert [line for line in EQUIVALENT if line not in made] == []
