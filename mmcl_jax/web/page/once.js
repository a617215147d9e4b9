// Remembers what `load` loads. If it fails, the next call tries again.
export function once(load) {
  let loaded = null;
  return () => (loaded ??= load().catch((error) => {
    loaded = null;
    throw error;
  }));
}
