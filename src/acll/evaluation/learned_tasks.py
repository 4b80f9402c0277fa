"""Tasks that were learned here, and those that a network had learned elsewhere."""

import pandas as pd


def learned_here(final: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of `final` of the tasks that have a score.

    What a network had learned elsewhere has none.
    """
    return final[final["score"].notna()]


def with_ratios(final: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of `final` of the sequences and methods that release by ratios.

    Tasks that the network had learned elsewhere, maybe in another way, are among them.
    """
    ratios = learned_here(final).groupby(["sequence", "method"])["ratio"].count()
    names = pd.MultiIndex.from_frame(final[["sequence", "method"]])
    return final[ratios.reindex(names).to_numpy() > 0]
