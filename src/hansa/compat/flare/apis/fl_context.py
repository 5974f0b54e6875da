"""FLContext: the props that components of one place share, and what the peer has made public."""

from __future__ import annotations

import logging
from typing import Any

from hansa.compat.flare.apis.fl_constant import ReservedKey

_LOG = logging.getLogger("hansa.flare")


class FLContext:
    """Props by name. Sticky ones are seen by all later contexts of the place; public ones go to the peer with each message."""

    def __init__(self) -> None:
        self.props: dict[str, dict[str, Any]] = {}
        self._changed: set[str] = set()  # sticky props that were set here, and are not the manager's yet

    def __enter__(self) -> FLContext:
        return self

    def __exit__(self, *_: object) -> None:
        if (manager := self.get_prop(ReservedKey.MANAGER)) is not None:
            manager.finalize_context(self)

    def set_prop(self, key: str, value: Any, private: bool = True, sticky: bool = True) -> bool:
        """Set a prop; False if one of that name has another mask, which stays as it is.

        Raises:
            ValueError: the key is no str.
        """
        if not isinstance(key, str):
            raise ValueError(f"prop key must be a str, but got {type(key)}")
        held = self.props.get(key)
        if held is not None and (held["private"], held["sticky"]) != (private, sticky):
            mask = f"private={held['private']}, sticky={held['sticky']}"
            _LOG.warning("prop.kept key=%s why=%r", key, f"it was set with {mask}")
            return False
        self.props[key] = {"value": value, "private": private, "sticky": sticky}
        if sticky:
            self._changed.add(key)
        return True

    def get_prop(self, key: str, default: Any = None) -> Any:
        held = self.props.get(key)
        return default if held is None else held["value"]

    def get_prop_detail(self, key: str) -> dict[str, Any] | None:
        held = self.props.get(key)
        return None if held is None else dict(held)

    def remove_prop(self, key: str) -> None:
        """Remove a prop; those of the framework stay."""
        if not key.startswith("__"):
            self.props.pop(key, None)
            self._changed.discard(key)

    def put(self, key: str, value: Any, *, private: bool = True, sticky: bool = False) -> None:
        """Set a prop of the framework's own, whatever mask it had."""
        self.props.pop(key, None)
        self.set_prop(key, value, private=private, sticky=sticky)

    def get_engine(self) -> Any:
        return self.get_prop(ReservedKey.ENGINE)

    def get_run_number(self) -> Any:
        return self.get_prop(ReservedKey.RUN_NUM)

    def get_job_id(self) -> str:
        return str(self.get_run_number())

    def set_run_number(self, n: int) -> None:
        self.put(ReservedKey.RUN_NUM, n, private=False, sticky=True)

    def get_identity_name(self, default: str = "") -> Any:
        return self.get_prop(ReservedKey.IDENTITY_NAME, default)

    def get_run_abort_signal(self) -> Any:
        return self.get_prop(ReservedKey.RUN_ABORT_SIGNAL)

    def get_aux_runner(self) -> Any:
        return self.get_prop(ReservedKey.AUX_RUNNER)

    def set_peer_context(self, ctx: FLContext) -> None:
        self.put(ReservedKey.PEER_CTX, ctx)

    def get_peer_context(self) -> Any:
        return self.get_prop(ReservedKey.PEER_CTX)

    def get_all_public_props(self) -> dict[str, Any]:
        return {key: held["value"] for key, held in self.props.items() if not held["private"]}

    def set_public_props(self, metadata: dict[str, Any]) -> None:
        """Take on what a peer has made public, in place of what was public here."""
        for key in [key for key, held in self.props.items() if not held["private"]]:
            del self.props[key]
        for key, value in metadata.items():
            self.put(key, value, private=False)

    def public_key_exists(self, key: str) -> bool:
        held = self.props.get(key)
        return held is not None and not held["private"]

    def clone_sticky(self) -> FLContext:
        """A context with the sticky props alone."""
        made = FLContext()
        made.props = {key: dict(held) for key, held in self.props.items() if held["sticky"]}
        return made

    def sync_sticky(self) -> None:
        """Hand over what was set here, and take on what others have set since.

        Raises:
            ValueError: the context has no manager.
        """
        manager = self.get_prop(ReservedKey.MANAGER)
        if manager is None:
            raise ValueError("the context has no manager")
        manager.finalize_context(self)
        self.props.update({key: dict(held) for key, held in manager.sticky.items()})

    def changed(self) -> dict[str, dict[str, Any]]:
        """The sticky props that were set here since this was asked last."""
        found = {key: dict(self.props[key]) for key in sorted(self._changed) if key in self.props}
        self._changed.clear()
        return found


class FLContextManager:
    """Makes the contexts of one place, and keeps what is sticky."""

    def __init__(
        self,
        engine: Any = None,
        identity_name: str = "",
        run_num: int = 1,
        public_stickers: dict[str, Any] | None = None,
        private_stickers: dict[str, Any] | None = None,
    ) -> None:
        self.engine, self.identity_name = engine, identity_name
        self.sticky: dict[str, dict[str, Any]] = {}
        for private, given in ((False, public_stickers), (True, private_stickers)):
            for key, value in (given or {}).items():
                self.sticky[key] = {"value": value, "private": private, "sticky": True}
        self.sticky[ReservedKey.RUN_NUM] = {"value": run_num, "private": False, "sticky": True}
        self.sticky[ReservedKey.IDENTITY_NAME] = {"value": identity_name, "private": False, "sticky": True}

    def new_context(self) -> FLContext:
        made = FLContext()
        made.props = {key: dict(held) for key, held in self.sticky.items()}
        made.put(ReservedKey.MANAGER, self)
        made.put(ReservedKey.ENGINE, self.engine)
        return made

    def finalize_context(self, ctx: FLContext) -> None:
        """Keep what was made sticky in a context."""
        self.sticky.update(ctx.changed())
