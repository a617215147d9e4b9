// The pixels of a video's frame, and the skeleton drawn over it.

const LARGEST = 960; // pixels of the longer side; larger videos are made smaller
const LEAST_CONFIDENCE = 0.3; // of both ends of a bone that is drawn
const LINE = 150; // pixels of the longer side for each pixel of a line's width
const COLOR = "#29c7ff", EDGE = "rgb(0 20 40 / 70%)";

export class Picture {
  constructor(canvas) {
    this.canvas = canvas;
    this.pen = canvas.getContext("2d", { willReadFrequently: true });
  }

  // Draws the video's current frame and returns its pixels, an ImageData.
  take(video) {
    const scale = Math.min(1, LARGEST / Math.max(video.videoWidth, video.videoHeight));
    const width = Math.round(video.videoWidth * scale), height = Math.round(video.videoHeight * scale);
    if (this.canvas.width !== width) this.canvas.width = width;
    if (this.canvas.height !== height) this.canvas.height = height;
    this.pen.drawImage(video, 0, 0, width, height);
    return this.pen.getImageData(0, 0, width, height);
  }

  // Draws a person's bones and joints.
  draw({ joints, confidence }, bones) {
    const { pen } = this, width = Math.max(2, Math.max(this.canvas.width, this.canvas.height) / LINE);
    const sure = (joint) => confidence[joint] >= LEAST_CONFIDENCE;
    pen.lineCap = "round";
    for (const [color, wider] of [[EDGE, 2.2], [COLOR, 1]]) {
      pen.strokeStyle = pen.fillStyle = color;
      pen.lineWidth = width * wider;
      for (const [joint, parent] of bones) {
        if (!sure(joint) || !sure(parent)) continue;
        pen.beginPath();
        pen.moveTo(...joints[joint]);
        pen.lineTo(...joints[parent]);
        pen.stroke();
      }
    }
  }
}
