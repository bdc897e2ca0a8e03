"""What an operator wants changed, as ``Edit``s of the raw tree; and what a changed tree would mean.

Pure: no store, no HTTP. ``stored`` reads documents out of a tree, ``places`` turns a wish for one of them into edits,
``many`` does so for whole catalogs, and ``judge`` says what problems edits would cause. Every edit expects the version
of the tree that was read, so that a commit fails rather than overwrites what nobody has seen.
"""

from anycastlb.edits.judge import Judged, Rules, applied, judge
from anycastlb.edits.many import LOCK, document, drain, drained, export, imported, undrain
from anycastlb.edits.merge import merge_patch, same
from anycastlb.edits.places import BackendPlace, DefaultsPlace, Missing, Place, ServicePlace
from anycastlb.edits.stored import Seen, Stored, grouped, stored

__all__ = [
    "LOCK",
    "BackendPlace",
    "DefaultsPlace",
    "Judged",
    "Missing",
    "Place",
    "Rules",
    "Seen",
    "ServicePlace",
    "Stored",
    "applied",
    "document",
    "drain",
    "drained",
    "export",
    "grouped",
    "imported",
    "judge",
    "merge_patch",
    "same",
    "stored",
    "undrain",
]
