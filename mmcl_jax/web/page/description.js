// What the export wrote for the page: the model in model.json, and the poses that it takes in poses.json.

export const FILES = ["model.json", "poses.json"];

export async function readDescription() {
  const [model, poses] = await Promise.all(FILES.map(readJson));
  return { model, poses };
}

async function readJson(name) {
  let reason = "no answer";
  try {
    const answer = await fetch(name, { cache: "reload" }); // a bad answer, too, may have been cached
    reason = `HTTP status ${answer.status}`;
    if (answer.ok) return await answer.json();
  } catch (error) {
    reason += `: ${error.message}`;
  }
  throw new Error(`${name} cannot be read (${reason}). Try again; if that does not help, export the page again.`);
}
