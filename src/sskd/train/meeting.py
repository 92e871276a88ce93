"""How the processes that torchrun has started find each other, also when it has started them again.

torchrun keeps one store of keys for all of its attempts. Whoever is quick after a restart would read there where an
ended process used to listen, and could reach nobody (https://github.com/pytorch/pytorch/issues/135712). How often an
attempt was made does not tell attempts apart: each machine counts its own restarts. So the processes of one attempt
agree on a part of the store that nobody has used before.
"""

import time
from datetime import timedelta
from uuid import uuid4

from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from sskd.data.feed import Share
from sskd.errors import UserError

ARRIVAL = timedelta(minutes=30)  # of the last process after the first
LOOK = 0.02  # seconds


def torchruns_store(share: Share) -> Store:
    """The store that the environment names, of all attempts."""
    store: Store
    store, _, _ = next(rendezvous("env://", share.rank, share.size, timeout=ARRIVAL))
    return store


def fresh(store: Store, share: Share, patience: timedelta = ARRIVAL) -> Store:
    """A part of the store for the processes of this attempt alone; returns in all of them once all are there.

    Each process asks under a name that nobody has had, and the first answers with a name of its own. Requests of
    processes that have ended are answered as well; but only the living count themselves in.

    Raises:
        UserError: not all came.
    """
    me, until = uuid4().hex, time.monotonic() + patience.total_seconds()
    if share.rank:
        store.set(f"asked/{share.rank}", me)
        return _counted_in(store, store.get(f"answer/{me}").decode())
    part, others, answered = PrefixStore(me, store), range(1, share.size), set[str]()
    while part.add("here", 0) < len(others):
        for asked in (f"asked/{rank}" for rank in others):
            if store.check([asked]) and (name := store.get(asked).decode()) not in answered:
                store.set(f"answer/{name}", me)
                answered.add(name)
        if time.monotonic() > until:
            raise UserError(
                f"Only {1 + part.add('here', 0)} of the {share.size} processes of this training came within "
                f"{patience}. See the other processes' own messages, then start it again: it continues."
            )
        time.sleep(LOOK)
    return part


def _counted_in(store: Store, name: str) -> Store:
    part = PrefixStore(name, store)
    part.add("here", 1)
    return part
