// Draws a clip of skeleton_player.py on a canvas, with play, pause, scrub and turn, and several moments beneath it.
"use strict";

const SkeletonPlayer = (() => {
  const FRAME_RATE = 30; // of the Kinect; records do not store it
  const SPEEDS = [1, 0.5, 0.25];
  const MOMENTS = 7;
  const PITCH = 0.12; // from a little above, so that the floor is visible
  const OUTLIERS = 0.005;
  const playing = new Set();
  let running = false;

  function unpack(text, count) {
    const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
    const values = new Int32Array(count);
    for (let place = 0, number = 0; number < count; number++) {
      let value = 0, factor = 1, byte;
      do {
        byte = bytes[place++];
        value += (byte & 127) * factor;
        factor *= 128;
      } while (byte > 127);
      values[number] = value % 2 ? -(value + 1) / 2 : value / 2;
    }
    return values;
  }

  function accumulate(differences, frames) {
    for (let place = 0; place < differences.length; place++)
      if (place % frames) differences[place] += differences[place - 1];
    return differences;
  }

  // Coordinates as a flat [body][joint][axis][frame]; the axes are right, up, away.
  function decode(clip, layout) {
    const { frames, bodies } = clip, joints = layout.joints.length, axes = layout.coordinates;
    const [up, sign] = layout.up;
    const others = [...Array(axes).keys()].filter((axis) => axis !== up);
    const order = [others[0], up, others[1]];
    const signs = [1, sign, 1];
    const steps = accumulate(unpack(clip.steps, bodies * joints * axes * frames), frames);
    const places = new Float32Array(bodies * joints * 3 * frames);
    for (let person = 0; person < bodies * joints; person++)
      for (let axis = 0; axis < axes; axis++)
        for (let frame = 0; frame < frames; frame++)
          places[(person * 3 + axis) * frames + frame] =
            signs[axis] * (clip.origin[order[axis]] + clip.step * steps[(person * axes + order[axis]) * frames + frame]);
    const lost = Array.from({ length: bodies }, (_, body) => new Set(clip.lost ? clip.lost[body] : []));
    const confidence = clip.confidence && accumulate(unpack(clip.confidence, bodies * joints * frames), frames);
    return { places, lost, confidence };
  }

  function range(values) {
    const sorted = Float32Array.from(values).sort();
    const skipped = Math.floor(sorted.length * OUTLIERS);
    return [sorted[skipped], sorted[sorted.length - 1 - skipped]];
  }

  // The bounds of a clip: its middle, its extent sideways (from every direction) and up, and the height of the floor.
  function fit(decoded, clip, layout) {
    const joints = layout.joints.length, axes = [[], [], []];
    for (let body = 0; body < clip.bodies; body++)
      for (let frame = 0; frame < clip.frames; frame++) {
        if (decoded.lost[body].has(frame)) continue;
        for (let joint = 0; joint < joints; joint++) {
          if (decoded.confidence && !decoded.confidence[(body * joints + joint) * clip.frames + frame]) continue;
          for (let axis = 0; axis < 3; axis++)
            axes[axis].push(decoded.places[((body * joints + joint) * 3 + axis) * clip.frames + frame]);
        }
      }
    if (!axes[0].length) return { middle: [0, 0, 0], aside: 1, high: 1, floor: 0 };
    const ranges = axes.map(range);
    const middle = ranges.map(([low, high]) => (low + high) / 2);
    const distances = axes[0].map((x, place) => Math.hypot(x - middle[0], axes[2][place] - middle[2]));
    const high = (ranges[1][1] - ranges[1][0]) / 2;
    const aside = layout.coordinates === 3 ? range(distances)[1] : (ranges[0][1] - ranges[0][0]) / 2;
    const least = 1e-6 * Math.max(1, ...middle.map(Math.abs));
    return { middle, aside: Math.max(aside, least), high: Math.max(high, least), floor: ranges[1][0] };
  }

  function animate(now) {
    for (const player of playing) player.advance(now);
    running = playing.size > 0;
    if (running) requestAnimationFrame(animate);
  }

  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      entry.target.skeletonPlayer.near = entry.isIntersecting;
      entry.target.skeletonPlayer.becomeVisible(entry.isIntersecting);
    }
  }, { rootMargin: "100px" });
  const everyPlayer = (act) => { for (const root of document.querySelectorAll(".player")) act(root.skeletonPlayer); };
  addEventListener("beforeprint", () => everyPlayer((player) => player.becomeVisible(true)));
  addEventListener("afterprint", () => everyPlayer((player) => player.becomeVisible(player.near)));
  matchMedia("screen and (prefers-color-scheme: dark)").addEventListener("change", () => {
    everyPlayer((player) => player.draw());
  });
  const resized = new ResizeObserver((entries) => {
    for (const entry of entries) entry.target.skeletonPlayer.draw();
  });

  return class SkeletonPlayer {
    // root: an empty element. The clip is decoded when it becomes visible, and then plays if autoplay is true.
    constructor(root, clip, layout, { autoplay = false, label = "skeleton" } = {}) {
      Object.assign(this, { root, clip, layout, name: label, frame: 0, speed: 0, yaw: 0, pitch: PITCH, visible: false });
      this.turns = layout.coordinates === 3;
      this.wanted = autoplay;
      root.classList.add("player");
      root.skeletonPlayer = this;
      this.view = this.canvas("player-view" + (this.turns ? " turns" : ""), `${label}: animation`);
      this.controls(root);
      this.strip = this.canvas("player-strip", `${label}: ${MOMENTS} moments`);
      this.listen();
      seen.observe(root);
      resized.observe(root);
    }

    canvas(className, label) {
      const canvas = document.createElement("canvas");
      canvas.className = className;
      canvas.tabIndex = 0;
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", label);
      this.root.append(canvas);
      return canvas;
    }

    controls(root) {
      const row = document.createElement("div");
      row.className = "player-controls";
      this.button = document.createElement("button");
      this.button.type = "button";
      this.slider = document.createElement("input");
      Object.assign(this.slider, { type: "range", min: 0, max: this.clip.frames - 1, step: 1, value: 0 });
      this.slider.setAttribute("aria-label", `frame of ${this.name}`);
      this.time = document.createElement("span");
      this.time.className = "player-time";
      this.rate = document.createElement("button");
      this.rate.type = "button";
      row.append(this.button, this.slider, this.time, this.rate);
      root.append(row);
      this.label();
    }

    label() {
      this.button.textContent = this.wanted ? "❚❚" : "▶";
      this.button.setAttribute("aria-label", `${this.wanted ? "pause" : "play"} ${this.name}`);
      this.rate.textContent = ["1×", "½×", "¼×"][this.speed];
      this.rate.title = this.rate.ariaLabel = `speed of ${this.name}: ${this.rate.textContent}`;
    }

    listen() {
      this.button.addEventListener("click", () => this.play(!this.wanted));
      this.rate.addEventListener("click", () => {
        this.speed = (this.speed + 1) % SPEEDS.length;
        this.label();
      });
      this.slider.addEventListener("input", () => this.seek(Number(this.slider.value)));
      this.strip.addEventListener("click", (event) => {
        const share = event.offsetX / this.strip.clientWidth;
        this.seek(this.moment(Math.min(MOMENTS - 1, Math.floor(share * MOMENTS))));
      });
      for (const canvas of [this.view, this.strip])
        canvas.addEventListener("keydown", (event) => {
          const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
          if (move) this.seek((this.frame + move + this.clip.frames) % this.clip.frames);
          else if (event.key === " ") this.play(!this.wanted);
          else return;
          event.preventDefault();
        });
      if (this.turns) this.listenToTurning();
    }

    listenToTurning() {
      this.view.title = "drag to turn, double-click to reset";
      let last = null;
      this.view.addEventListener("pointerdown", (event) => {
        last = [event.clientX, event.clientY];
        this.view.setPointerCapture(event.pointerId);
      });
      this.view.addEventListener("pointermove", (event) => {
        if (!last) return;
        this.yaw -= (event.clientX - last[0]) * 0.012;
        this.pitch = Math.max(-0.3, Math.min(1.5, this.pitch + (event.clientY - last[1]) * 0.008));
        last = [event.clientX, event.clientY];
        this.draw();
      });
      for (const kind of ["pointerup", "pointercancel"]) this.view.addEventListener(kind, () => { last = null; });
      this.view.addEventListener("dblclick", () => {
        Object.assign(this, { yaw: 0, pitch: PITCH });
        this.draw();
      });
    }

    becomeVisible(visible) {
      this.visible = visible;
      if (visible && !this.decoded) {
        this.decoded = decode(this.clip, this.layout);
        this.bounds = fit(this.decoded, this.clip, this.layout);
      }
      if (visible) this.draw();
      else for (const canvas of [this.view, this.strip]) canvas.width = canvas.height = 0; // hundreds of canvases exhaust a phone's memory
      this.schedule();
    }

    play(wanted) {
      this.wanted = wanted;
      this.label();
      this.schedule();
    }

    schedule() {
      this.started = null;
      if (!(this.wanted && this.visible && this.clip.frames > 1)) {
        playing.delete(this);
        return;
      }
      playing.add(this);
      if (running) return;
      running = true;
      requestAnimationFrame(animate);
    }

    advance(now) {
      const interval = (1000 * this.clip.every) / (FRAME_RATE * SPEEDS[this.speed]);
      this.started ??= now - interval;
      const passed = Math.floor((now - this.started) / interval);
      if (passed < 1) return;
      this.started += passed * interval;
      this.show((this.frame + passed) % this.clip.frames);
    }

    // Stops at a frame.
    seek(frame) {
      this.play(false);
      this.show(frame);
    }

    show(frame) {
      this.frame = frame;
      this.drawView();
    }

    moment(number) {
      return Math.min(this.clip.frames - 1, Math.floor(((number + 0.5) * this.clip.frames) / MOMENTS));
    }

    draw() {
      if (!this.decoded || !this.visible) return;
      const style = getComputedStyle(this.root);
      this.colors = Object.fromEntries(
        ["first", "first-left", "second", "second-left", "floor"].map((name) => [name, style.getPropertyValue(`--${name}`)]));
      this.drawView();
      const pen = this.clear(this.strip);
      const width = this.strip.clientWidth / MOMENTS;
      for (let number = 0; number < MOMENTS; number++)
        this.drawFrame(pen, this.moment(number), number * width, width, this.strip.clientHeight, 0.55);
    }

    drawView() {
      this.slider.value = this.frame;
      this.time.textContent = `${this.frame * this.clip.every + 1} / ${(this.clip.frames - 1) * this.clip.every + 1}`;
      if (!this.decoded || !this.visible) return;
      const pen = this.clear(this.view);
      if (this.turns) this.drawFloor(pen);
      this.drawFrame(pen, this.frame, 0, this.view.clientWidth, this.view.clientHeight, 1);
    }

    clear(canvas) {
      const density = window.devicePixelRatio || 1;
      const width = Math.round(canvas.clientWidth * density), height = Math.round(canvas.clientHeight * density);
      if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
      const pen = canvas.getContext("2d");
      pen.setTransform(density, 0, 0, density, 0, 0);
      pen.clearRect(0, 0, width, height);
      pen.lineCap = "round";
      return pen;
    }

    // Maps a point (right, up, away) to pixels in a picture of the given size, and its depth behind the middle.
    project(place, width, height) {
      const { middle, aside, high } = this.bounds;
      const [x, y, z] = [0, 1, 2].map((axis) => place[axis] - middle[axis]);
      if (!this.turns) {
        const scale = 0.46 * Math.min(width / aside, height / high);
        return [width / 2 + x * scale, height / 2 - y * scale, 0];
      }
      const scale = 0.44 * Math.min(width / aside, height / (high + aside * Math.abs(Math.sin(this.pitch)) * 0.5));
      const right = x * Math.cos(this.yaw) + z * Math.sin(this.yaw);
      const behind = z * Math.cos(this.yaw) - x * Math.sin(this.yaw);
      const up = y * Math.cos(this.pitch) + behind * Math.sin(this.pitch);
      const away = behind * Math.cos(this.pitch) - y * Math.sin(this.pitch);
      const distance = 6 * Math.max(aside, high);
      const nearness = distance / Math.max(distance + away, distance / 4);
      return [width / 2 + right * scale * nearness, height / 2 - up * scale * nearness, away];
    }

    drawFloor(pen) {
      const { middle, aside, high, floor } = this.bounds;
      const size = this.layout.metres ? 0.5 : Math.max(aside, high) / 2;
      const reach = Math.min(8, Math.ceil(Math.max(aside, high * 0.6) / size));
      pen.strokeStyle = this.colors.floor;
      pen.lineWidth = 1;
      pen.beginPath();
      for (let line = -reach; line <= reach; line++)
        for (const along of [0, 2]) {
          const ends = [-reach, reach].map((end) => {
            const place = [middle[0], floor, middle[2]];
            place[along] += end * size;
            place[2 - along] += line * size;
            return this.project(place, this.view.clientWidth, this.view.clientHeight);
          });
          pen.moveTo(ends[0][0], ends[0][1]);
          pen.lineTo(ends[1][0], ends[1][1]);
        }
      pen.stroke();
    }

    drawFrame(pen, frame, left, width, height, thickness) {
      const { clip, layout, decoded } = this, joints = layout.joints.length;
      for (let body = 0; body < clip.bodies; body++) {
        if (decoded.lost[body].has(frame)) continue;
        const name = body ? "second" : "first";
        const points = layout.joints.map((_, joint) => {
          const base = (body * joints + joint) * 3 * clip.frames + frame;
          return this.project([0, 1, 2].map((axis) => decoded.places[base + axis * clip.frames]), width, height);
        });
        const sure = (joint) =>
          decoded.confidence ? decoded.confidence[(body * joints + joint) * clip.frames + frame] / 100 : 1;
        const color = (joint) =>
          this.colors[/\bleft\b/i.test(layout.joints[joint]) ? `${name}-left` : name];
        const bones = layout.bones.map(([joint, parent]) => [joint, parent, points[joint][2] + points[parent][2]]);
        bones.sort((one, other) => other[2] - one[2]); // far bones first
        pen.lineWidth = 3.5 * thickness;
        for (const [joint, parent] of bones) {
          pen.globalAlpha = Math.min(sure(joint), sure(parent));
          pen.strokeStyle = color(joint);
          pen.beginPath();
          pen.moveTo(left + points[joint][0], points[joint][1]);
          pen.lineTo(left + points[parent][0], points[parent][1]);
          pen.stroke();
        }
        points.forEach((point, joint) => {
          pen.globalAlpha = sure(joint);
          pen.fillStyle = color(joint);
          pen.beginPath();
          pen.arc(left + point[0], point[1], (/^head$|^nose$/i.test(layout.joints[joint]) ? 5.5 : 2.6) * thickness, 0, 7);
          pen.fill();
        });
        pen.globalAlpha = 1;
      }
    }
  };
})();
