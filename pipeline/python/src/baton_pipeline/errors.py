"""What can go wrong, by who can mend it. Texts name the operation and the thing; they become `error` of
`training.failed`."""


class PipelineError(Exception):
    """Any of those below."""


class UsageError(PipelineError):
    """The program was started or called in a way that makes no sense."""


class EventError(PipelineError):
    """The job's event is not one that it can answer."""


class DataError(PipelineError):
    """The training data are not what the trainer needs."""


class ExportError(PipelineError):
    """The model cannot be exported, or the export answers differently."""


class StoreError(PipelineError):
    """The store lacks something, holds something damaged, or failed."""


class SinkError(PipelineError):
    """An event was refused, and sending it again would change nothing."""


class SinkUnreachable(SinkError):
    """An event was not taken for as long as it was tried; later it may be."""


def missing(what: str, extra: str, error: ImportError) -> UsageError:
    """A package that is not installed. The helper is in no index, so nobody is told to fetch it from one."""
    return UsageError(
        f"{what}, which the helper's extra {extra!r} brings ({error}): in a checkout of Baton, "
        f"pip install './pipeline/python[{extra}]'"
    )
