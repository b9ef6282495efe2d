// What is being looked at, kept in the address so that it can be sent to somebody.
//
// `#/?y=latency_p95&x=fps` is the matrix, `#/run/r0001-p03-k1?from=1.2&to=3` a run.

/** The present route: `{ run, query }`. */
export function route() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const [kind, id] = path.split("/");
  return { run: kind === "run" && id ? decodeURIComponent(id) : null, query: new URLSearchParams(query) };
}

function address(path, query) {
  const kept = [...query].filter(([, v]) => v !== "" && v !== null && v !== undefined);
  const text = kept.map(([k, v]) => `${encodeURIComponent(k)}=${encodeURIComponent(v).replaceAll("%2C", ",")}`).join("&");
  return `#/${path}${text ? `?${text}` : ""}`;
}

export const runAddress = (id) => `#/run/${encodeURIComponent(id)}`;

/** Changes the address in place: going back skips it. */
export function keep(changes) {
  const { run, query } = route();
  for (const [name, value] of Object.entries(changes)) {
    if (value === null || value === undefined || value === "") query.delete(name);
    else query.set(name, value);
  }
  history.replaceState(null, "", address(run ? `run/${encodeURIComponent(run)}` : "", query));
}
