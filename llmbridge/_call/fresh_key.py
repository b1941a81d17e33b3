"""The key from a function of the caller's: fetched within a call, checked, and kept secret."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from llmbridge._tools.runs import Loop, OwnLoop, drop_frames, this_thread
from llmbridge.errors import Cancelled, ClockExpired, LLMBridgeError, MissingKey, Pending
from llmbridge.secret import KeyFunction, Secret

if TYPE_CHECKING:
    from llmbridge._transport import Call

__all__ = ["fresh_key"]


def fresh_key(function: KeyFunction, call: Call) -> Secret | None:
    """The key that the function returns now; None only if it may return none. Blocks, at most until the call ends.

    The function runs in a thread of its own, so that a timeout can end the wait for it. An awaitable that it returns
    runs in the event loop that waits for this thread, or in a new one if there is none.

    Raises:
        LLMBridgeError: As the function raised it.
        MissingKey: The function raised another exception, which is the cause.
        ConfigError: The result cannot be a key; it is not quoted.
        ClockExpired, Cancelled: The call has ended; the function's thread runs on.
    """
    key_call = _KeyCall(function, this_thread.loop)
    context = copy_context()
    try:
        return call.search(lambda: context.run(key_call.result), key_call.stop)
    except ClockExpired as error:
        if key_call.cut_off:
            error.message += ", and the function given as api_key= had not returned by then"
        raise


class _KeyCall:
    """Calls the function once.

    Args:
        function: Returns the key.
        loop: Runs an awaitable; None for a new event loop.
    """

    def __init__(self, function: KeyFunction, loop: Loop | None) -> None:
        self._function = function
        self._loop = loop
        self._outcome: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()
        self._cancel: Callable[[], None] | None = None
        self._stopped = self._over = False
        self.cut_off = False  # it was stopped before it had a result

    def result(self) -> Secret | None:
        """The checked key; raises like `fresh_key`. Blocks."""
        try:
            value = self._function()
            if inspect.isawaitable(value):
                value = self._awaited(value)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # noqa: BLE001 - also a loop's own, which would end a task that is not its own
            failure = Pending(_typed(error))
        else:
            if isinstance(value, Secret) or (value is None and self._function.optional):
                return value
            return Secret(value, "what api_key() returned")
        finally:
            self._over = True
        raise failure.taken()

    def stop(self) -> None:
        """Ends the wait, and cancels the awaitable, from any thread."""
        self._stopped, self.cut_off = True, not self._over
        if (cancel := self._cancel) is not None:
            cancel()
        self._outcome.put((None, Cancelled("the call has ended")))

    def _awaited(self, value: Awaitable[Any]) -> Any:
        begun = False

        async def job() -> None:
            nonlocal begun
            begun = True
            try:
                self._outcome.put((await value, None))
            except BaseException as error:
                self._outcome.put((None, error))
                raise

        cancel = self._cancel = (self._loop or OwnLoop()).start([job])
        if self._stopped:
            cancel()
        found, error = self._outcome.get()
        self._cancel = None  # it refers to the coroutine, which refers to this
        if not begun and inspect.iscoroutine(value):
            value.close()  # prevents Python's warning that it was never awaited
        if error is not None:
            raise error
        return found


def _typed(error: BaseException) -> LLMBridgeError:
    """The function's exception as an LLMBridgeError, without the frames that it has passed: they hold keys."""
    drop_frames(error, "api_key()")
    if isinstance(error, LLMBridgeError):
        return error
    missing = MissingKey(f"no key: the function given as api_key= raised {type(error).__name__}")
    missing.__cause__ = error
    return missing
