"""Kept units as a graph: links by direct effect, files, differences, and the way of the flow."""

from nadkit.graph.architecture import SubArchitecture
from nadkit.graph.differences import Difference, diff
from nadkit.graph.extraction import extract
from nadkit.graph.flows import Flow, flow
from nadkit.graph.structure import layer_graph

__all__ = ["Difference", "Flow", "SubArchitecture", "diff", "extract", "flow", "layer_graph"]
