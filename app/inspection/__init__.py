"""Inspecting images: parameters, decoding, scores, decision, drawings, the history's entry, the answer."""
