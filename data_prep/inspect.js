// Builds the page of inspect.py from the JSON in it. All text becomes text nodes, never markup.
"use strict";

function overview() {
  const facts = data.facts.filter(([name]) => name !== "preprocessing");
  const tiles = facts.slice(0, 6), rest = facts.slice(6);
  document.getElementById("title").textContent = data.records;
  document.getElementById("note").textContent = data.facts.find(([name]) => name === "preprocessing")[1];
  const tile = ([name, value]) => make("div", { class: "tile" }, make("span", { class: "quiet small" }, name), make("b", {}, value));
  section("overview", "Overview",
    make("div", { class: "tiles" }, tiles.map(tile)),
    make("div", { class: "columns", style: "margin-top:14px" },
      make("div", { class: "card" }, make("dl", {}, rest.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]))),
      histogram(), protocols()));
}

function histogram() {
  const { first, last, width, counts } = data.lengths, most = Math.max(...counts);
  const bars = counts.map((number, bin) => {
    const from = first + bin * width, to = Math.min(last, from + width - 1);
    return make("span", { style: `height:${(100 * number) / most}%;${number ? "" : "visibility:hidden"}`,
      title: `${width > 1 ? `${from} to ${to}` : from} frames: ${count(number)} clips` });
  });
  return make("div", { class: "card" }, make("h3", {}, "Frames per clip"),
    make("div", { class: "histogram", role: "img", "aria-label": "histogram of clip lengths" }, bars),
    make("div", { class: "ends" }, make("span", {}, first), make("span", {}, `highest bar: ${count(most)} clips`),
      make("span", {}, last)));
}

function protocols() {
  const all = data.protocols.map((protocol) => {
    const whole = protocol.train + protocol.test;
    return make("div", { style: "margin-bottom:10px" }, make("b", {}, protocol.name), " ",
      make("span", { class: "quiet small" }, `${protocol.classes} classes`),
      make("div", { class: "share" }, make("span", { style: `width:${(100 * protocol.train) / (whole || 1)}%` }),
        make("span", { style: `width:${(100 * protocol.test) / (whole || 1)}%` })),
      make("div", { class: "small" }, `${count(protocol.train)} train (${percent(protocol.train, whole)}), ${count(protocol.test)} test`),
      make("details", { class: "quiet small" }, make("summary", {}, "rule"), make("p", {}, protocol.rule)));
  });
  return make("div", { class: "card" }, make("h3", {}, "Protocols"),
    all.length ? make("div", { class: "scroll", tabindex: "0" }, all) : make("p", { class: "quiet" }, "No protocol is known for this dataset."));
}

function bars(rows, { many = false, choose = null } = {}) {
  const most = Math.max(1, ...rows.map((row) => row[1]));
  return make("div", { class: many ? "bars many" : "bars" }, rows.map((row) =>
    make(choose ? "button" : "div", { class: "bar", ...(choose && { type: "button", click: () => choose(row) }) },
      make("span", { class: "name" }, row[0]),
      make("span", { class: "track" }, make("span", { style: `width:${(100 * row[1]) / most}%` })),
      make("span", { class: "count" }, count(row[1])))));
}

function counts() {
  const { class: classes, ...fields } = data.counts;
  const numbered = classes.map(([name, number], label) => [`${label + 1}. ${name}`, number, name]);
  const present = numbered.filter((row) => row[1]), absent = numbered.filter((row) => !row[1]);
  const numbers = present.map((row) => row[1]);
  const [least, most] = [Math.min(...numbers), Math.max(...numbers)];
  const summary = `${present.length} with ${least < most ? `${count(least)} to ` : ""}${count(most)} clip${most > 1 ? "s" : ""} each`;
  const several = Object.entries(fields).filter(([, rows]) => rows.length > 1);
  const single = Object.entries(fields).filter(([, rows]) => rows.length === 1);
  section("counts", "Counts",
    make("div", { class: "card" }, make("h3", {}, "Class ", make("span", { class: "quiet small" }, summary)),
      bars(present, { many: present.length > 20, choose: (row) => chooseClass(row[2]) }),
      absent.length ? make("details", { class: "small" }, make("summary", { class: "quiet" }, `${absent.length} classes without a clip`),
        listOfNames(absent.map((row) => row[0]), absent.length)) : null),
    make("div", { class: "columns", style: "margin-top:14px" }, several.map(([field, rows]) =>
      make("div", { class: "card" }, make("h3", {}, capital(field), " ", make("span", { class: "quiet small" }, `${rows.length} different`)),
        make("div", { class: "scroll", tabindex: "0" }, bars(rows))))),
    single.length ? make("p", { class: "quiet small" }, `The same in every clip: ${single.map(([field, [[value]]]) => `${field} ${value}`).join(", ")}.`) : null);
}

function listOfNames(names, total) {
  return make("p", { class: "small" }, names.join(", ") + (total > names.length ? ` and ${count(total - names.length)} more` : ""));
}

function leftOut() {
  const { total, reasons, items, problem } = data.set_aside;
  const rows = items.map(([name, reason]) => make("tr", {}, make("td", {}, name), make("td", {}, reason)));
  const cards = [make("div", { class: "card" }, make("h3", {}, problem ? "Set aside" : `Set aside: ${count(total)}`),
    problem ? make("p", { class: "problem" }, problem) : total ? null : make("p", { class: "quiet" }, "nothing"),
    total ? bars(reasons) : null,
    total ? make("details", {}, make("summary", { class: "small" }, items.length < total ? `the first ${count(items.length)} by name (set_aside.json lists all)` : "by name"),
      make("div", { class: "scroll", tabindex: "0" }, make("table", {}, make("tbody", {}, rows)))) : null)];
  const complete = data.lacking.filter(({ count: lacking }) => !lacking).map(({ kind }) => kind);
  for (const { kind, count: lacking, names } of data.lacking.filter((one) => one.count))
    cards.push(make("div", { class: "card" }, make("h3", {}, kind === "images" ? "Without an image: " : `Without ${kind}: `, count(lacking)),
      make("details", { ...(lacking <= 20 && { open: "" }) }, make("summary", { class: "small" }, "by name"),
        make("div", { class: "scroll", tabindex: "0" }, listOfNames(names, lacking)))));
  if (complete.length)
    cards.push(make("div", { class: "card" }, make("h3", {}, "Every clip has"), complete.map((kind) => make("p", { class: "small" }, kind))));
  for (const { kind, problem: fault } of data.problems)
    cards.push(make("div", { class: "card" }, make("h3", {}, kind), make("p", { class: "problem" }, fault)));
  section("left-out", "Left out", make("div", { class: "columns" }, cards));
}

function textSets() {
  if (!data.text_sets.length) return;
  section("text", "Text sets", make("div", { class: "columns" }, data.text_sets.map((set) =>
    make("div", { class: "card" }, make("h3", {}, set.name),
      make("dl", {}, set.about.concat(set.about.some(([key]) => key === "width") ? [] : [["width", String(set.width)]])
        .flatMap(([key, value]) => [make("dt", {}, key), make("dd", {}, value)])),
      set.counted ? make("div", { style: "margin-top:10px" }, make("p", { class: "small quiet" },
        `${count(set.different)} different answers of ${count(set.counted)} clips${set.different > set.answers.length ? `; the ${set.answers.length} most frequent` : ""}`),
      bars(set.answers)) : make("p", { class: "quiet small" }, "stores no answers as text"),
      set.damaged ? make("p", { class: "problem" }, `${count(set.damaged)} clips cannot be read`) : null))));
}

// The part of the mosaic that shows moment `number`, where it was in the picture and with its own proportions.
function crop(jpeg, [left, top, right, bottom], number, total) {
  const [width, height] = [right - left, bottom - top];
  const whole = { href: jpeg, x: -number * width, y: 0, width: total * width, height, preserveAspectRatio: "none" };
  return make("svg", { x: left, y: top, width, height, viewBox: `0 0 ${width} ${height}` }, make("image", whole));
}

function bones(joints) {
  const seen = data.layout.bones.filter(([a, b]) => joints[a] && joints[b]);
  const path = seen.map(([a, b]) => `M${joints[a]}L${joints[b]}`).join("");
  return make("path", { d: path, class: "bones" });
}

function boxes({ frames, boxes: found, size: [height, width] }, jpeg, poses) {
  return make("div", { class: "boxes" }, found.map((box, number) => {
    const [left, top, right, bottom] = box;
    const label = `${poses ? "pose and box" : "box"} in frame ${frames[number] + 1}`;
    const picture = make("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
    if (poses) picture.append(crop(jpeg, box, number, found.length));
    picture.append(make("rect", { x: left, y: top, width: right - left, height: bottom - top, ...(poses && { class: "outline" }) }));
    if (poses) picture.append(...poses[number].map(bones));
    return make("figure", {}, picture, `frame ${frames[number] + 1}`);
  }));
}

function mosaic(image, name) {
  if (image === undefined) return null;
  if (image === null) return make("p", { class: "quiet small" }, "This clip has no image.");
  if (image.problem) return make("p", { class: "problem" }, image.problem);
  return make("div", { class: "mosaic" }, make("img", { src: image.jpeg, alt: `mosaic of ${name}`, loading: "lazy", decoding: "async" }),
    image.origin ? boxes(image.origin, image.jpeg, image.poses) : null, make("p", { class: "quiet small" }, image.note));
}

// Text sets with the same model and question share question and answer.
function texts(all) {
  const asked = new Map();
  for (const text of all) {
    const key = text.set.split("/").slice(0, 2).join("/");
    asked.set(key, [...(asked.get(key) || []), text]);
  }
  return [...asked].map(([key, sets]) => {
    const { question, answer } = sets.find((set) => "answer" in set) || sets[0];
    return make("div", { class: "question" }, make("div", {}, make("span", { class: "quiet small" }, `${key}: `), question ? make("q", {}, question) : null),
      answer !== null && answer !== undefined ? make("div", { class: "answer" }, answer || "(nothing)") : null,
      make("ul", {}, sets.map((set) => make("li", {}, `${set.set.split("/")[2]}: `, set.missing ? "this clip has none" : set.problem ? make("span", { class: "problem" }, set.problem) : set.feature))));
  });
}

const players = [];

function clipCard(clip) {
  const fields = ["subject", "camera", "setup", "replication"].map((field) => [field, clip[field]]);
  fields.push([clip.num_frames === 1 ? "frame" : "frames", clip.num_frames], [clip.num_bodies === 1 ? "body" : "bodies", clip.num_bodies]);
  const chips = make("div", { class: "chips" }, fields.map(([field, value]) => make("span", {}, `${field} `, make("b", {}, value))));
  const stage = make("div");
  const card = make("article", { class: "card clip" },
    make("div", {}, make("h3", {}, clip.class), make("div", { class: "quiet small" }, `${clip.name}, label ${clip.label}`)),
    clip.problem ? make("p", { class: "problem" }, clip.problem) : stage,
    chips, mosaic(clip.image, clip.name), texts(clip.texts));
  if (clip.skeleton) {
    if (clip.skeleton.every > 1) chips.append(make("span", {}, `drawn: one frame in ${clip.skeleton.every}`));
    players.push(new SkeletonPlayer(stage, clip.skeleton, data.layout, { autoplay: moving, label: clip.name }));
  }
  card.searched = [clip.name, clip.class, ...clip.texts.map((text) => text.answer || "")].join("\n").toLowerCase();
  return card;
}

let moving = !matchMedia("(prefers-reduced-motion: reduce)").matches;
let chooseClass = () => {};

function clips() {
  const cards = data.clips.map(clipCard);
  const search = make("input", { type: "search", placeholder: "name, class or answer", "aria-label": "search clips" });
  const names = [...new Set(data.clips.map((clip) => clip.class))];
  const choice = make("select", { "aria-label": "class" }, make("option", { value: "" }, `all classes (${cards.length} clips)`),
    names.map((name) => make("option", { value: name }, name)));
  const found = make("p", { class: "quiet", "aria-live": "polite" });
  const playAll = make("button", { type: "button" });
  const label = () => { playAll.textContent = moving ? "❚❚ Pause all" : "▶ Play all"; };
  playAll.addEventListener("click", () => {
    moving = !moving;
    for (const player of players) player.play(moving);
    label();
  });
  const filter = () => {
    let shown = 0;
    cards.forEach((card, number) => {
      card.hidden = !(card.searched.includes(search.value.toLowerCase()) && (!choice.value || data.clips[number].class === choice.value));
      shown += !card.hidden;
    });
    found.textContent = shown < cards.length ? `${shown} of the ${cards.length} clips on this page` : "";
  };
  search.addEventListener("input", filter);
  choice.addEventListener("change", filter);
  chooseClass = (name) => {
    choice.value = names.includes(name) ? name : "";
    search.value = names.includes(name) ? "" : name;
    filter();
    document.getElementById("clips").scrollIntoView();
  };
  label();
  const turning = data.layout.coordinates === 3 ? "Drag a skeleton to turn it; double-click to reset it. " : "";
  section("clips", cards.length === 1 ? "Clip" : "Clips",
    make("p", { class: "quiet small" }, `${count(cards.length)} of ${data.facts[0][1]}. ${turning}Click a moment to stop there. Left limbs are paler; the second body is orange. Clips play at 30 frames per second.`),
    cards.length > 1 ? make("div", { class: "toolbar" }, search, choice, playAll) : null, found,
    make("div", { class: "clips" }, cards));
}

overview();
counts();
leftOut();
textSets();
clips();
