"""What all parameters of steps have in common.

The parameters of a step are one typed object. `acll.plan` makes it from the configuration, the
workflow hands it on as JSON, the step gets it back as it was. No key has a default, and each holds
what its step uses and nothing else: so a result is made anew when, and only when, one of them
changes.
"""

from acll.settings import Settings


class Params(Settings):
    """The parameters of a step."""
