// Builds the page of experiments.report from the JSON in it. Whatever text that holds becomes text nodes, never markup.
"use strict";

const number = (value, digits = 4) => (value === null || value === undefined ? "–" : Number(value.toPrecision(digits)).toString());
const points = (value) => (value === null || value === undefined ? "–" : `${(100 * value).toFixed(2)} %`);
const quiet = (text) => make("p", { class: "quiet small" }, text);
const scored = data.scored.map((place) => [data.runs[place], place]);

function table(heads, rows) {
  const numeric = (cell) => typeof cell === "number" || /^[-+–]?[\d.]*( %)?$/.test(cell);
  return make("div", { class: "wide scroll", tabindex: "0" }, make("table", {},
    make("thead", {}, make("tr", {}, heads.map((head, place) => make("th", rows.length && numeric(rows[0][place].textContent ?? rows[0][place]) ? { class: "number" } : {}, head)))),
    make("tbody", {}, rows.map((row) => make("tr", {}, row.map((cell) => make("td", numeric(cell.textContent ?? cell) ? { class: "number" } : {}, cell)))))));
}

// A choice among several above what `show(place)` makes.
function chosen(label, names, show) {
  const stage = make("div"), select = make("select", { "aria-label": label }, names.map((name, place) => make("option", { value: place }, name)));
  const renew = () => stage.replaceChildren(show(Number(select.value)));
  select.addEventListener("change", renew);
  renew();
  return make("div", {}, names.length > 1 ? make("div", { class: "toolbar grid-tools" }, select) : null, stage);
}

function overview() {
  document.getElementById("title").textContent = data.runs.map((run) => run.name).join(", ");
  section("runs", "Runs", make("div", { class: "columns" }, data.runs.map((run) => {
    const last = run.last || {}, model = run.config.model || {}, seen = run.config.data || {};
    const facts = [["folder", run.path], ["model", [model.backbone, seen.stream, seen.protocol].filter(Boolean).join(", ")],
      ["seed", run.config.seed], ["last epoch", last.epoch], ["test top-1 there", points(last.test_top1)], ["test top-5", points(last.test_top5)],
      ["mean class", points(last.test_mean_class)], ["test loss", number(last.test_loss)], ["train loss", number(last.train_loss)],
      ["train top-1", points(last.train_top1)]];
    if (run.confusion) facts.push(["scores", `top-1 ${points(run.confusion.top1)} of ${count(run.confusion.clips)} clips`]);
    for (const start of run.starts) facts.push([`start at step ${start.step}`, [start.time, start.commit, start.devices].filter(Boolean).join(", ")]);
    return make("div", { class: "card" }, make("h3", {}, run.name),
      make("dl", {}, facts.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value ?? "–")])),
      run.missing.map((text) => make("p", { class: "problem" }, text)),
      make("details", {}, make("summary", { class: "small" }, "config"), make("pre", { class: "wide small" }, JSON.stringify(run.config, null, 2))));
  })));
}

function curves() {
  const line = (column, dashed) => data.runs.map((run, place) => ({ colour: colour(place), dashed,
    points: run.curves.filter((row) => row[column] !== null).map((row) => [row[0], row[column]]) })).filter((one) => one.points.length);
  const charts = [lineChart("Loss", [...line(1, true), ...line(2, false)], (value) => number(value, 3)),
    lineChart("Top-1", [...line(3, true), ...line(4, false)], (value) => `${(100 * value).toFixed(0)} %`),
    lineChart("Learning rate", line(5, false), (value) => number(value, 2))].filter(Boolean);
  if (!charts.length) return;
  section("curves", "Training", make("div", { class: "legend" }, data.runs.map((run, place) => make("span", {},
    make("span", { class: "swatch", style: `border-color:${colour(place)}` }), run.name)),
  make("span", { class: "quiet" }, "solid: test, dashed: train; by epoch")), make("div", { class: "columns", style: "margin-top:8px" }, charts));
}

function confusions() {
  if (!scored.length) return;
  const names = data.classes;
  section("confusion", "Confusions", make("div", { class: "card" }, chosen("run", scored.map(([run]) => run.name), (place) => {
    const { cells, pairs, counts } = scored[place][0].confusion;
    const found = new Map(cells.map(([row, column, clips]) => [row * names.length + column, clips]));
    const value = (row, column) => found.get(row * names.length + column) || 0;
    return make("div", {}, quiet("Rows are true classes, columns predictions; orange is wrong, darker is a greater share of the row."),
      matrixGrid({ size: names.length, value, names, label: "confusion matrix", shade: (clips, row, column) => [clips / (counts[row] || 1), row !== column],
        tell: (row, column) => `True: ${row + 1}. ${names[row]}. Predicted: ${column + 1}. ${names[column]}. ${value(row, column)} of ${counts[row]} clips.` }),
      make("h3", {}, "Most confused"), pairs.length ? table(["true", "predicted", "clips", "of"],
        pairs.map(([row, column, clips]) => [names[row], names[column], clips, counts[row]])) : quiet("none"));
  })));
  section("classes", "Classes", make("div", { class: "card" }, table(["class", "clips", ...scored.map(([run]) => run.name)], names.map((name, label) =>
    [`${label + 1}. ${name}`, scored[0][0].confusion.counts[label], ...scored.map(([run]) => {
      const right = run.confusion.cells.find(([row, column]) => row === label && column === label), all = run.confusion.counts[label];
      return all ? points((right ? right[2] : 0) / all) : "–";
    })]))));
  if (data.gains.length)
    section("gains", "Gains", make("div", { class: "card" }, chosen("compared run", scored.slice(1).map(([run]) => `${run.name} over ${scored[0][0].name}`),
      (place) => table(["class", "clips", "before", "after", "points"], data.gains[place].map(([label, clips, before, after, gain]) =>
        [`${label + 1}. ${names[label]}`, clips, `${before.toFixed(2)} %`, `${after.toFixed(2)} %`,
          make("b", { class: gain > 0 ? "up" : gain < 0 ? "down" : "quiet" }, `${gain > 0 ? "+" : ""}${gain.toFixed(2)}`)])))));
}

function hardest() {
  if (!scored.length) return;
  if (data.records_problem) {
    section("hardest", "Hardest clips", make("p", { class: "problem" }, `Left out: ${data.records_problem}`));
    return;
  }
  section("hardest", "Hardest clips", quiet("By the loss of the true class, the mean over the runs. Drag a skeleton to turn it."),
    make("div", { class: "clips" }, data.hardest.map((clip) => {
      const stage = make("div");
      if (clip.skeleton) new SkeletonPlayer(stage, clip.skeleton, data.layout, { label: clip.name });
      return make("article", { class: "card clip" }, make("div", {}, make("h3", {}, data.classes[clip.label]), make("div", { class: "quiet small" }, clip.name)),
        clip.problem ? make("p", { class: "problem" }, clip.problem) : stage,
        clip.runs.map(({ loss, top5 }, place) => make("div", { class: "small" }, make("b", {}, `${scored[place][0].name}, loss ${number(loss, 3)}`),
          make("div", { class: "bars" }, top5.map(([label, share]) => make("div", { class: "bar" },
            make("span", { class: "name" }, data.classes[label], label === clip.label ? make("b", {}, " (true)") : null),
            make("span", { class: "track" }, make("span", { style: `width:${100 * share}%` })), make("span", { class: "count" }, `${(100 * share).toFixed(1)} %`)))))));
    })));
}

// initial may be unknown; the three views of one learned matrix.
function views(learned, initial, names, label) {
  const size = learned.length, all = { learned: (r, c) => learned[r][c] };
  if (initial) Object.assign(all, { initial: (r, c) => initial[r][c], difference: (r, c) => learned[r][c] - initial[r][c] });
  return chosen("view", Object.keys(all), (place) => {
    const kind = Object.keys(all)[place], value = all[kind];
    let most = 1e-9;
    for (let r = 0; r < size; r++) for (let c = 0; c < size; c++) most = Math.max(most, Math.abs(value(r, c)));
    const named = (joint) => (names[joint] === undefined ? `${joint + 1}` : `${joint + 1}. ${names[joint]}`);
    return matrixGrid({ size, value, names: names.length === size ? names : [], label: `${label}, ${kind}`, shade: (x) => [Math.abs(x) / most, x < 0],
      tell: (r, c) => `${named(r)} from ${named(c)}: ${value(r, c).toFixed(4)}. Full colour: ${number(most, 3)}; orange is negative.` });
  });
}

function learnedMatrices() {
  const runs = data.runs.filter((run) => run.matrices && run.matrices.topologies);
  if (runs.length) section("topologies", "Learned adjacency", make("div", { class: "card" }, chosen("run", runs.map((run) => run.name), (place) => {
    const { topologies: { slices, initial, blocks }, step } = runs[place].matrices;
    return make("div", {}, quiet(`Of the checkpoint at step ${count(step)}.${initial ? "" : " What they began as is not known here."}`),
      chosen("block", blocks.map(({ name, alpha }) => (alpha === null ? name : `${name}, alpha ${alpha}`)), (block) =>
        chosen("subset", slices, (slice) => views(blocks[block].learned[slice], initial && initial[slice], data.joints, "learned adjacency"))));
  })));
  const refined = data.runs.filter((run) => run.matrices && run.matrices.refinement.length);
  if (refined.length) section("refinement", "Refinement", make("div", { class: "card" }, chosen("run", refined.map((run) => run.name), (place) => {
    const terms = refined[place].matrices.refinement;
    return chosen("term", terms.map(({ name }) => name), (term) => {
      const { matrix, diagonal } = terms[term], size = (matrix || diagonal).length;
      const eye = [...Array(size)].map((_, r) => [...Array(size)].map((__, c) => Number(r === c)));
      return views(matrix || eye.map((row, r) => row.map((one) => one * diagonal[r])), eye, data.classes, "refinement matrix");
    });
  })));
}

overview();
curves();
confusions();
hardest();
learnedMatrices();
