"""BlazePose: 33 joints of each person in a picture, and where they are in meters, with Google's networks.

A detector finds persons in the whole picture; a second network finds the landmarks of each in a turned square. Two of
its landmarks give the square for the next frame, so that the detector runs only at the start, when somebody is lost,
and from time to time for newcomers and mistakes. What goes into the networks and what comes out of them is computed as
in MediaPipe's Pose.
"""

from mmcl_jax.poses.blazepose.estimator import LAYOUT, BlazePose

__all__ = ["LAYOUT", "BlazePose"]
