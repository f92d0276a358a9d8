"""The one error a throwaway server of ours can make."""

from dr_assets.estate.errors import SourceError


class EngineError(SourceError):
    """A throwaway server did not start, answer or stop; `found` ends with the tail of its log where there is one."""
