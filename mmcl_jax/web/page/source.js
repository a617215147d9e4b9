// Where pictures come from: a camera or a video file, played in a <video>.

// A reason in plain words, for the person in front of the page.
export class SourceError extends Error {}

const REFUSED = "The camera was refused. To allow it, open the site settings beside the address (a camera, lock or " +
  "slider sign), allow the camera, and press “Use the camera” again. A video works without permission.";
const REASONS = {
  NotAllowedError: REFUSED,
  SecurityError: REFUSED,
  NotFoundError: "No camera was found. Connect one and try again, or choose a video.",
  OverconstrainedError: "No camera was found that fits. Choose a video.",
  NotReadableError: "The camera cannot be read; another program may use it. Close that program and try again.",
};

// Asks for a camera and plays it. `facing` is "user" (towards the person who holds the device) or "environment".
export async function openCamera(video, facing) {
  if (!navigator.mediaDevices)
    throw new SourceError("Browsers give the camera only to pages from https:// or localhost. Choose a video, or " +
      "open this page from such an address.");
  try {
    const wanted = { facingMode: facing, width: { ideal: 640 }, height: { ideal: 480 } };
    video.srcObject = await navigator.mediaDevices.getUserMedia({ video: wanted, audio: false });
  } catch (error) {
    throw new SourceError(REASONS[error.name] ?? `The camera cannot be opened (${error.message}). Choose a video.`);
  }
  await video.play();
}

export async function countCameras() {
  const devices = await navigator.mediaDevices.enumerateDevices();
  return devices.filter((device) => device.kind === "videoinput").length;
}

// Opens a file that the person chose, at its beginning; it never leaves the browser.
export async function openFile(video, file) {
  video.src = URL.createObjectURL(file);
  await new Promise((resolve, reject) => {
    video.onloadeddata = resolve;
    video.onerror = () => reject(new SourceError(`This browser cannot play ${file.name}. Choose an MP4 or WebM file.`));
  });
}

export function close(video) {
  video.pause();
  video.srcObject?.getTracks().forEach((track) => track.stop());
  video.srcObject = null;
  if (video.src) URL.revokeObjectURL(video.src);
  video.onerror = null;
  video.removeAttribute("src");
  video.load();
}

// Yields the numbers of frames at a constant rate, while the video plays and until `signal` is aborted. A frame that
// comes while the last one is computed is left out, and its number is passed over.
export async function* frameNumbers(video, rate, signal) {
  let begin = null, last = -1;
  for (;;) {
    const moment = await nextMoment(video, signal);
    if (moment === null) return;
    begin ??= moment;
    const number = Math.floor((moment - begin) * rate + 1e-6);
    if (number <= last) continue;
    last = number;
    yield number;
  }
}

// The time in seconds of the next picture; null at the end.
function nextMoment(video, signal) {
  return new Promise((resolve) => {
    const end = () => resolve(null);
    if (signal.aborted || video.ended) return end();
    signal.addEventListener("abort", end, { once: true });
    video.addEventListener("ended", end, { once: true });
    const come = (now, shown) => {
      signal.removeEventListener("abort", end);
      video.removeEventListener("ended", end);
      resolve(video.srcObject ? now / 1000 : (shown?.mediaTime ?? video.currentTime));
    };
    if (video.requestVideoFrameCallback) video.requestVideoFrameCallback(come);
    else requestAnimationFrame(come);
  });
}
