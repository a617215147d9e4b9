"""The layouts of the datasets and pose estimators that this project knows."""

from mmcl_jax.data.layouts.layout import Layout

_NTU = Layout.from_names(
    joints="""base of spine, middle of spine, neck, head, left shoulder, left elbow, left wrist, left hand,
    right shoulder, right elbow, right wrist, right hand, left hip, left knee, left ankle, left foot, right hip,
    right knee, right ankle, right foot, spine, left hand tip, left thumb, right hand tip, right thumb""",
    bones="""base of spine < middle of spine, middle of spine < spine, neck < spine, head < neck,
    left shoulder < spine, left elbow < left shoulder, left wrist < left elbow, left hand < left wrist,
    right shoulder < spine, right elbow < right shoulder, right wrist < right elbow, right hand < right wrist,
    left hip < base of spine, left knee < left hip, left ankle < left knee, left foot < left ankle,
    right hip < base of spine, right knee < right hip, right ankle < right knee, right foot < right ankle,
    left hand tip < left thumb, left thumb < left hand, right hand tip < right thumb, right thumb < right hand""",
    centre="middle of spine",
    pelvis="base of spine",
    chest="spine",
    links="left hand tip < left hand, right hand tip < right hand",
)

_KINECT_V1_BONES = """hip centre < spine, spine < shoulder centre, head < shoulder centre,
    left shoulder < shoulder centre, left elbow < left shoulder, left wrist < left elbow, left hand < left wrist,
    right shoulder < shoulder centre, right elbow < right shoulder, right wrist < right elbow,
    right hand < right wrist, left hip < hip centre, left knee < left hip, left ankle < left knee,
    left foot < left ankle, right hip < hip centre, right knee < right hip, right ankle < right knee,
    right foot < right ankle"""

_NW_UCLA = Layout.from_names(
    joints="""hip centre, spine, shoulder centre, head, left shoulder, left elbow, left wrist, left hand,
    right shoulder, right elbow, right wrist, right hand, left hip, left knee, left ankle, left foot, right hip,
    right knee, right ankle, right foot""",
    bones=_KINECT_V1_BONES,
    centre="spine",
    pelvis="hip centre",
    chest="shoulder centre",
)

_UTD_MHAD = Layout.from_names(
    joints="""head, shoulder centre, spine, hip centre, left shoulder, left elbow, left wrist, left hand,
    right shoulder, right elbow, right wrist, right hand, left hip, left knee, left ankle, left foot, right hip,
    right knee, right ankle, right foot""",
    bones=_KINECT_V1_BONES,
    centre="spine",
    pelvis="hip centre",
    chest="shoulder centre",
)

# The 17 keypoints of COCO, as HRNet, YOLO-pose and others give them. COCO has no neck: the shoulders are children of
# the nose, the hips of the shoulders, as in pyskl's graph.
_COCO = Layout.from_names(
    joints="""nose, left eye, right eye, left ear, right ear, left shoulder, right shoulder, left elbow, right elbow,
    left wrist, right wrist, left hip, right hip, left knee, right knee, left ankle, right ankle""",
    bones="""left eye < nose, right eye < nose, left ear < left eye, right ear < right eye, left shoulder < nose,
    right shoulder < nose, left elbow < left shoulder, right elbow < right shoulder, left wrist < left elbow,
    right wrist < right elbow, left hip < left shoulder, right hip < right shoulder, left knee < left hip,
    right knee < right hip, left ankle < left knee, right ankle < right knee""",
    centre="nose",
)

# The joints that BlazePose, COCO and the Kinects share. A Kinect's head stands for the nose.
_BODY13 = Layout.from_names(
    joints="""nose, left shoulder, right shoulder, left elbow, right elbow, left wrist, right wrist, left hip,
    right hip, left knee, right knee, left ankle, right ankle""",
    bones="""left shoulder < nose, right shoulder < nose, left elbow < left shoulder, right elbow < right shoulder,
    left wrist < left elbow, right wrist < right elbow, left hip < left shoulder, right hip < right shoulder,
    left knee < left hip, right knee < right hip, left ankle < left knee, right ankle < right knee""",
    centre="nose",
)

# BlazePose's 33 landmarks (MediaPipe Pose), in its order; its "foot index" is the big toe, "pinky", "index" and "thumb"
# are knuckles.
_BLAZEPOSE33 = Layout.from_names(
    joints="""nose, left eye inner, left eye, left eye outer, right eye inner, right eye, right eye outer, left ear,
    right ear, left mouth, right mouth, left shoulder, right shoulder, left elbow, right elbow, left wrist, right wrist,
    left pinky, right pinky, left index, right index, left thumb, right thumb, left hip, right hip, left knee,
    right knee, left ankle, right ankle, left heel, right heel, left big toe, right big toe""",
    bones="""left eye inner < nose, left eye < left eye inner, left eye outer < left eye, left ear < left eye outer,
    right eye inner < nose, right eye < right eye inner, right eye outer < right eye, right ear < right eye outer,
    left mouth < nose, right mouth < nose, left shoulder < nose, right shoulder < nose, left elbow < left shoulder,
    right elbow < right shoulder, left wrist < left elbow, right wrist < right elbow, left pinky < left wrist,
    right pinky < right wrist, left index < left wrist, right index < right wrist, left thumb < left wrist,
    right thumb < right wrist, left hip < left shoulder, right hip < right shoulder, left knee < left hip,
    right knee < right hip, left ankle < left knee, right ankle < right knee, left heel < left ankle,
    right heel < right ankle, left big toe < left ankle, right big toe < right ankle""",
    centre="nose",
)

# OpenPose's COCO model. Its neck is the middle of the shoulders, which other layouts call the chest.
_OPENPOSE18 = Layout.from_names(
    joints="""nose, neck, right shoulder, right elbow, right wrist, left shoulder, left elbow, left wrist, right hip,
    right knee, right ankle, left hip, left knee, left ankle, right eye, left eye, right ear, left ear""",
    bones="""nose < neck, right shoulder < neck, right elbow < right shoulder, right wrist < right elbow,
    left shoulder < neck, left elbow < left shoulder, left wrist < left elbow, right hip < right shoulder,
    right knee < right hip, right ankle < right knee, left hip < left shoulder, left knee < left hip,
    left ankle < left knee, right eye < nose, left eye < nose, right ear < right eye, left ear < left eye""",
    centre="neck",
    chest="neck",
)

# OpenPose's BODY_25; its "MidHip" is the pelvis.
_BODY25 = Layout.from_names(
    joints="""nose, neck, right shoulder, right elbow, right wrist, left shoulder, left elbow, left wrist, pelvis,
    right hip, right knee, right ankle, left hip, left knee, left ankle, right eye, left eye, right ear, left ear,
    left big toe, left small toe, left heel, right big toe, right small toe, right heel""",
    bones="""nose < neck, right shoulder < neck, right elbow < right shoulder, right wrist < right elbow,
    left shoulder < neck, left elbow < left shoulder, left wrist < left elbow, pelvis < neck, right hip < pelvis,
    right knee < right hip, right ankle < right knee, left hip < pelvis, left knee < left hip, left ankle < left knee,
    right eye < nose, left eye < nose, right ear < right eye, left ear < left eye, left big toe < left ankle,
    left small toe < left big toe, left heel < left ankle, right big toe < right ankle,
    right small toe < right big toe, right heel < right ankle""",
    centre="pelvis",
    pelvis="pelvis",
    chest="neck",
)

# Halpe's 26 body joints, as AlphaPose gives them; its "Head" is the top of the head, its "Hip" the pelvis.
_HALPE26 = Layout.from_names(
    joints="""nose, left eye, right eye, left ear, right ear, left shoulder, right shoulder, left elbow, right elbow,
    left wrist, right wrist, left hip, right hip, left knee, right knee, left ankle, right ankle, top of head, neck,
    pelvis, left big toe, right big toe, left small toe, right small toe, left heel, right heel""",
    bones="""nose < neck, left eye < nose, right eye < nose, left ear < left eye, right ear < right eye,
    left shoulder < neck, right shoulder < neck, left elbow < left shoulder, right elbow < right shoulder,
    left wrist < left elbow, right wrist < right elbow, pelvis < neck, left hip < pelvis, right hip < pelvis,
    left knee < left hip, right knee < right hip, left ankle < left knee, right ankle < right knee, top of head < nose,
    left big toe < left ankle, right big toe < right ankle, left small toe < left big toe,
    right small toe < right big toe, left heel < left ankle, right heel < right ankle""",
    centre="pelvis",
    pelvis="pelvis",
    chest="neck",
)

# Human3.6M's 17 joints, as VideoPose3D and others choose and order them; its "head" is the top of the head.
_H36M17 = Layout.from_names(
    joints="""pelvis, right hip, right knee, right ankle, left hip, left knee, left ankle, belly, chest, neck,
    top of head, left shoulder, left elbow, left wrist, right shoulder, right elbow, right wrist""",
    bones="""right hip < pelvis, right knee < right hip, right ankle < right knee, left hip < pelvis,
    left knee < left hip, left ankle < left knee, belly < pelvis, chest < belly, neck < chest, top of head < neck,
    left shoulder < chest, left elbow < left shoulder, left wrist < left elbow, right shoulder < chest,
    right elbow < right shoulder, right wrist < right elbow""",
    centre="belly",
    pelvis="pelvis",
    chest="chest",
)

LAYOUTS = {
    "ntu": _NTU,
    "nw_ucla": _NW_UCLA,
    "utd_mhad": _UTD_MHAD,
    "coco": _COCO,
    "body13": _BODY13,
    "blazepose33": _BLAZEPOSE33,
    "openpose18": _OPENPOSE18,
    "body25": _BODY25,
    "halpe26": _HALPE26,
    "h36m17": _H36M17,
}
