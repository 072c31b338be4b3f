"""How clear a difference must be before something is asked about it.

Factors are of the larger over the smaller. Clouds that were cleaned differ a little from what they were made from, so
what is measured on them is asked about only beyond `SPARE` times its margin.
"""

from __future__ import annotations

DISTANCE = 1.2  # factor between two distances
VOLUME = 1.25  # factor between two boxes' volumes
DEPTH = 1.06  # factor between two depths
HEIGHT = 0.12  # of the taller of two boxes, between their highest corners
NEAREST = 0.1  # metres that can be asked about
NEXT_TO, FAR_FROM = 0.5, 2.0  # distance over the mean of both boxes' extents
PROXIMITY = 1.1  # factor away from these two
DIRECTION = 10.0  # degrees from the edge between two of eight directions
SAME_DISTANCE, OTHER_DISTANCE = 1.03, 1.12  # factors between distances to the camera: the same up to, others from
VIEWS_APART = 15.0  # degrees of rotation between two views of a question
TURN = 10.0  # degrees by which one camera motion of a choice differs from another at least
SAME_POINT = 0.003  # metres between what two pixels of one point show
OTHER_POINT = 20.0  # pixels of the picture between candidates
OTHER_SHARE = 1 / 7  # of its shorter side, which they are apart, too: no one's letter lies on another's
SIDE = 0.04  # of a picture's width, between the middles of what is left and right of each other
SPARE = 1.03  # factor beyond the margin, for what is measured on clouds
TOLERANCE = 0.1  # of a length, by which an answer may be off
LEAST_TOLERANCE = 0.05  # metres by which it always may
