"""The latency models of `latency.py` for arrays of nodes. Needs numpy (the extra `sim`)."""

from typing import assert_never

import numpy as np

from pastryd.sim.latency import (
    LOCAL_S,
    PLANE_RTT_MAX_S,
    SPHERE_RTT_MAX_S,
    Matrix,
    Plane,
    Sphere,
    TransitStub,
)
from pastryd.sim.vector import DelayFunction, Floats, Ints

Model = Matrix | Sphere | Plane | TransitStub


def delays_of(model: Model) -> DelayFunction:
    """Return a function that tells the delays between the nodes that the model has placed."""
    if isinstance(model, Matrix):
        return _matrix(model)
    if isinstance(model, Sphere):
        return _sphere(model)
    if isinstance(model, Plane):
        return _plane(model)
    if isinstance(model, TransitStub):
        return _transit_stub(model)
    assert_never(model)


def _matrix(model: Matrix) -> DelayFunction:
    sites = np.array(model.sites, np.int32)
    size = len(model.delays)
    delays = np.array(model.delays).ravel()

    def delay_s(a: Ints, b: Ints) -> Floats:
        found: Floats = delays[sites[a] * size + sites[b]]
        return found

    return delay_s


def _sphere(model: Sphere) -> DelayFunction:
    x, y, z = np.array(model.points).reshape(-1, 3).T.copy()

    def delay_s(a: Ints, b: Ints) -> Floats:
        dot = x[a] * x[b] + y[a] * y[b] + z[a] * z[b]
        found: Floats = LOCAL_S + np.arccos(np.clip(dot, -1, 1)) * (SPHERE_RTT_MAX_S / 2 / np.pi)
        return found

    return delay_s


def _plane(model: Plane) -> DelayFunction:
    x, y = np.array(model.points).T.copy()

    def delay_s(a: Ints, b: Ints) -> Floats:
        found: Floats = LOCAL_S + np.hypot(x[a] - x[b], y[a] - y[b]) * (
            PLANE_RTT_MAX_S / 2 / np.sqrt(2)
        )
        return found

    return delay_s


def _transit_stub(model: TransitStub) -> DelayFunction:
    stubs = np.array([stub for stub, _ in model.homes], np.int32)
    local_s = np.array([delay for _, delay in model.homes])
    transit = np.array([domain for domain, _ in model.stubs], np.int32)
    up_s = np.array([delay for _, delay in model.stubs])
    core = _sphere(model.core)

    def delay_s(a: Ints, b: Ints) -> Floats:
        one, other = stubs[a], stubs[b]
        across_s = np.where(transit[one] == transit[other], 0.0, core(transit[one], transit[other]))
        beyond_s = np.where(one == other, 0.0, up_s[one] + across_s + up_s[other])
        found: Floats = local_s[a] + beyond_s + local_s[b]
        return found

    return delay_s
