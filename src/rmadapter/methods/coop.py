"""CoOp: the words around the class name are learned.

Source: Zhou et al., IJCV 2022. As in the tables of CoCoOp and its successors, the context is shared by all classes and
stands before the name; with length 16 and a random start it is the journal's.

    prompt of class c    start, v_1 … v_n, name_c, the rest of the template, end      context v (n, w), trained
    t_c = text(prompt_c)                                                              (c, d)
    logits = exp(scale) f t^T                                                         (b, c), f and t L2-normalised

    L = cross-entropy
"""

from __future__ import annotations

from rmadapter.methods.parts.prompts import ContextMethod, ContextSettings


class CoOp(ContextMethod):
    """See the module's text. Settings: ``ContextSettings``."""

    name = "coop"
    source = "Zhou et al., IJCV 2022"
    Settings = ContextSettings
