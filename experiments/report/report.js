// Builds the page of experiments.report from the JSON in it. All text becomes text nodes, never markup.
"use strict";

const number = (value, digits = 4) => (value === null || value === undefined ? "–" : Number(value.toPrecision(digits)).toString());
const points = (value) => (value === null || value === undefined ? "–" : `${(100 * value).toFixed(2)} %`);
const quiet = (text) => make("p", { class: "quiet small" }, text);
const scored = data.scored.map((place) => [data.runs[place], place]);

function table(name, heads, rows) {
  const numeric = (cell) => typeof cell === "number" || /^[-+–]?[\d.]*( %)?$/.test(cell);
  return make("div", { class: "wide scroll", tabindex: "0", role: "region", "aria-label": name }, make("table", {},
    make("thead", {}, make("tr", {}, heads.map((head, place) => make("th", rows.length && numeric(rows[0][place].textContent ?? rows[0][place]) ? { class: "number" } : {}, head)))),
    make("tbody", {}, rows.map((row) => make("tr", {}, row.map((cell) => make("td", numeric(cell.textContent ?? cell) ? { class: "number" } : {}, cell)))))));
}

// Menus side by side, each {label, names(...choices before it)}; `show(...choices)` shows the result. When one changes,
// those after it keep their choice if it still exists.
function choices(all, show) {
  const selects = all.map(({ label }) => make("select", { "aria-label": label, change: renew }));
  function renew() {
    const places = [];
    selects.forEach((select, number) => {
      const names = all[number].names(...places), kept = select.selectedIndex;
      select.replaceChildren(...names.map((name, place) => make("option", { value: place }, name)));
      select.selectedIndex = kept > 0 && kept < names.length ? kept : 0;
      select.hidden = names.length < 2;
      places.push(select.selectedIndex);
    });
    show(...places);
  }
  renew();
  return make("div", { class: "toolbar grid-tools" }, selects);
}

function overview() {
  document.getElementById("title").textContent = data.runs.map((run) => run.name).join(", ");
  section("runs", "Runs", quiet("Training and test figures are those of the last epoch, never of the best one."), make("div", { class: "columns" }, data.runs.map((run) => {
    const last = run.last || {}, model = run.config.model || {}, seen = run.config.data || {};
    const facts = [["folder", run.path], ["model", [model.backbone, seen.stream, seen.protocol].filter(Boolean).join(", ")],
      ["seed", run.config.seed], ["last epoch", last.epoch], ["test top-1", points(last.test_top1)],
      ...(last.test_top5 === undefined || last.test_top5 === null ? [] : [["test top-5", points(last.test_top5)]]), // not of five classes
      ["mean class", points(last.test_mean_class)], ["test loss", number(last.test_loss)], ["train loss", number(last.train_loss)],
      ["train top-1", points(last.train_top1)]];
    if (run.confusion) facts.push(["score file", `top-1 ${points(run.confusion.top1)} of ${count(run.confusion.clips)} clips`]);
    for (const start of run.starts) facts.push([`start at step ${start.step}`, [start.time, start.commit, start.devices].filter(Boolean).join(", ")]);
    return make("div", { class: "card" }, make("h3", {}, run.name),
      make("dl", {}, facts.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value ?? "–")])),
      run.missing.map((text) => make("p", { class: "problem" }, text)),
      make("details", {}, make("summary", { class: "small" }, "config"), make("pre", { class: "wide small" }, JSON.stringify(run.config, null, 2))));
  })));
}

function curves() {
  const line = (column, dashed) => data.runs.map((run, place) => ({ color: color(place), dashed,
    points: run.curves.filter((row) => row[column] !== null).map((row) => [row[0], row[column]]) })).filter((one) => one.points.length);
  const charts = [lineChart("Loss", [...line(1, true), ...line(2, false)], (value) => number(value, 3)),
    lineChart("Top-1", [...line(3, true), ...line(4, false)], (value) => `${(100 * value).toFixed(0)} %`),
    lineChart("Learning rate", line(5, false), (value) => number(value, 2))].filter(Boolean);
  if (!charts.length) return;
  section("curves", "Training", make("div", { class: "legend" }, data.runs.map((run, place) => make("span", {},
    make("span", { class: "swatch", style: `border-color:${color(place)}` }), run.name)),
  make("span", { class: "quiet" }, "solid: test, dashed: train, per epoch")), make("div", { class: "columns", style: "margin-top:8px" }, charts));
}

function confusions() {
  if (!scored.length) return;
  const names = data.classes, grid = matrixGrid(), most = make("div");
  section("confusion", "Confusions", make("div", { class: "card" }, choices([{ label: "run", names: () => scored.map(([run]) => run.name) }], (place) => {
    const [run] = scored[place], { cells, pairs, counts } = run.confusion;
    const found = new Map(cells.map(([row, column, clips]) => [row * names.length + column, clips]));
    const value = (row, column) => found.get(row * names.length + column) || 0;
    grid.show({ size: names.length, value, names, label: `Confusion matrix of ${run.name}`, shade: (clips, row, column) => [Math.sqrt(clips / (counts[row] || 1)), row !== column],
      tell: (row, column) => `True: ${row + 1}. ${names[row]}. Predicted: ${column + 1}. ${names[column]}. ${value(row, column)} of ${counts[row]} clips.` });
    most.replaceChildren(make("h3", {}, "Most confused"), pairs.length ? table("Most confused", ["true", "predicted", "clips", "of"],
      pairs.map(([row, column, clips]) => [names[row], names[column], clips, counts[row]])) : quiet("none"));
  }), quiet("Rows are true classes, columns are predictions. Blue is correct, orange is wrong; a stronger color is a greater share of the row."), make("div", { class: "beside" }, grid.element, most)));
  section("classes", "Classes", make("div", { class: "card" }, quiet("Top-1 accuracy of each class, in percent."),
    table("Accuracy per class", ["class", "clips", ...scored.map(([run]) => run.name)], names.map((name, label) =>
      [`${label + 1}. ${name}`, scored[0][0].confusion.counts[label], ...scored.map(([run]) => {
        const right = run.confusion.cells.find(([row, column]) => row === label && column === label), all = run.confusion.counts[label];
        return all ? (100 * (right ? right[2] : 0) / all).toFixed(2) : "–";
      })]))));
  if (!data.gains.length) return;
  const gained = make("div");
  section("gains", "Gains", make("div", { class: "card" },
    choices([{ label: "compared run", names: () => scored.slice(1).map(([run]) => `${run.name} over ${scored[0][0].name}`) }], (place) => {
      const [before, after] = [scored[0][0].name, scored[place + 1][0].name];
      gained.replaceChildren(quiet(`Top-1 accuracy of each class, in percent, by ${before} (before) and by ${after} (after), and the difference in points.`),
        table("Gains per class", ["class", "clips", "before", "after", "points"], data.gains[place].map(([label, clips, old, now, gain]) =>
          [`${label + 1}. ${names[label]}`, clips, old.toFixed(2), now.toFixed(2),
            make("b", { class: gain > 0 ? "up" : gain < 0 ? "down" : "quiet" }, `${gain > 0 ? "+" : ""}${gain.toFixed(2)}`)])));
    }), gained));
}

function hardest() {
  if (!scored.length) return;
  const skeletons = data.hardest.filter((clip) => clip.skeleton), fewer = skeletons.filter((clip) => clip.skeleton.every > 1);
  section("hardest", "Hardest clips", quiet(`Sorted by the loss of the true class, averaged over the runs.${data.layout && data.layout.coordinates === 3 ? " Drag a skeleton to turn it." : ""}`),
    fewer.length ? quiet(`${count(fewer.length)} of the ${count(skeletons.length)} skeletons show every second frame, or fewer, to keep the page small; with fewer --clips they show more.`) : null,
    data.records_problem ? make("p", { class: "problem" }, data.records_problem) : null,
    make("div", { class: "clips" }, data.hardest.map((clip) => {
      const stage = make("div");
      if (clip.skeleton) new SkeletonPlayer(stage, clip.skeleton, data.layout, { label: clip.name });
      return make("article", { class: "card clip" }, make("div", {}, make("h3", {}, data.classes[clip.label]), make("div", { class: "quiet small" }, clip.name)),
        clip.problem ? make("p", { class: "problem" }, clip.problem) : clip.skeleton ? stage : null,
        clip.runs.map(({ loss, top5 }, place) => make("div", { class: "small" }, make("b", {}, `${scored[place][0].name}, loss ${number(loss, 3)}`),
          make("div", { class: "bars" }, top5.map(([label, share]) => make("div", { class: "bar" },
            make("span", { class: "name" }, data.classes[label], label === clip.label ? make("b", {}, " (true)") : null),
            make("span", { class: "track" }, make("span", { style: `width:${100 * share}%` })), make("span", { class: "count" }, `${(100 * share).toFixed(1)} %`)))))));
    })));
}

// Shows a learned matrix, its initial value (null: unknown) or their difference in a grid.
const VIEWS = ["learned", "initial", "difference"];
function showView(grid, view, learned, initial, names, label) {
  const size = learned.length, value = { learned: (r, c) => learned[r][c], initial: (r, c) => initial[r][c],
    difference: (r, c) => learned[r][c] - initial[r][c] }[VIEWS[view]];
  let most = 1e-9;
  for (let r = 0; r < size; r++) for (let c = 0; c < size; c++) most = Math.max(most, Math.abs(value(r, c)));
  const known = names.length === size, named = (place) => (known ? `${place + 1}. ${names[place]}` : `${place + 1}`);
  grid.show({ size, value, names: known ? names : [], label: `${label}, ${VIEWS[view]}`, shade: (x) => [Math.abs(x) / most, x < 0],
    tell: (r, c) => `${named(r)} from ${named(c)}: ${value(r, c).toFixed(4)}. Full color: ${number(most, 3)}; orange is negative.` });
}

function learnedMatrices() {
  const runs = data.runs.filter((run) => run.matrices && run.matrices.topologies);
  if (runs.length) {
    const grid = matrixGrid(), note = make("p", { class: "quiet small" }), of = (place) => runs[place].matrices.topologies;
    section("topologies", "Learned adjacency", make("div", { class: "card" }, choices([
      { label: "run", names: () => runs.map((run) => run.name) },
      { label: "block", names: (run) => of(run).blocks.map(({ name, alpha }) => (alpha === null ? name : `${name}, alpha ${alpha}`)) },
      { label: "subset", names: (run) => of(run).slices },
      { label: "view", names: (run) => (of(run).initial ? VIEWS : VIEWS.slice(0, 1)) }], (run, block, slice, view) => {
      const { blocks, initial } = of(run);
      note.textContent = `From the checkpoint at step ${count(runs[run].matrices.step)}. The joint of a row receives from the joints of the columns.`
        + (initial ? "" : " The initial values are unknown.");
      showView(grid, view, blocks[block].learned[slice], initial && initial[slice], runs[run].joints, `Learned adjacency of ${runs[run].name}`);
    }), note, grid.element));
  }
  const refined = data.runs.filter((run) => run.matrices && run.matrices.refinement.length);
  if (!refined.length) return;
  const grid = matrixGrid(), terms = (run) => refined[run].matrices.refinement;
  section("refinement", "Refinement", make("div", { class: "card" }, choices([{ label: "run", names: () => refined.map((run) => run.name) },
    { label: "term", names: (run) => terms(run).map(({ name }) => name) }, { label: "view", names: () => VIEWS }], (run, term, view) => {
    const { matrix, diagonal } = terms(run)[term], size = (matrix || diagonal).length;
    const eye = [...Array(size)].map((_, r) => [...Array(size)].map((__, c) => Number(r === c)));
    showView(grid, view, matrix || eye.map((row, r) => row.map((one) => one * diagonal[r])), eye, data.classes, `Refinement matrix of ${refined[run].name}`);
  }), quiet("The refined score of a row is a combination of the scores of the columns."), grid.element));
}

overview();
curves();
confusions();
hardest();
learnedMatrices();
