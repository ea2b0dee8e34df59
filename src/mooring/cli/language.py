"""The one function that every text for a person goes through, so that a translation is a file and no change of code.

A translation is `locale/<language>/LC_MESSAGES/mooring.mo` beside this module; without one the text stays as it is.
"""

import gettext
from pathlib import Path

_ = gettext.translation("mooring", Path(__file__).parent / "locale", fallback=True).gettext
