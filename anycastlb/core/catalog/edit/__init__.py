"""What an operator wants changed, as ``Edit``s of the raw tree, and what the changed tree would mean.

Pure: no store, no HTTP. ``stored`` reads documents out of a tree, ``targets`` turns a wish for one of them into edits,
``bulk`` does so for whole catalogs, and ``validate`` says which problems the edits would cause. Every edit expects the
version of the tree that was read, so that a commit fails rather than overwrite what nobody has seen.
"""

from anycastlb.core.catalog.edit.bulk import LOCK, document, drain, drained, export_documents, imported, undrain
from anycastlb.core.catalog.edit.documents import DocumentTarget, read_documents
from anycastlb.core.catalog.edit.merge_patch import merge_patch, same
from anycastlb.core.catalog.edit.stored import KnownDocument, Stored, grouped, stored
from anycastlb.core.catalog.edit.targets import (
    BackendTarget,
    DefaultsTarget,
    ServiceTarget,
    Target,
    TargetMissing,
    delete,
    write,
)
from anycastlb.core.catalog.edit.validate import Rules, ValidatedEdits, applied, read_catalog, validate

__all__ = [
    "LOCK",
    "BackendTarget",
    "DefaultsTarget",
    "DocumentTarget",
    "KnownDocument",
    "Rules",
    "ServiceTarget",
    "Stored",
    "Target",
    "TargetMissing",
    "ValidatedEdits",
    "applied",
    "delete",
    "document",
    "drain",
    "drained",
    "export_documents",
    "grouped",
    "imported",
    "merge_patch",
    "read_catalog",
    "read_documents",
    "same",
    "stored",
    "undrain",
    "validate",
    "write",
]
