// Shared by all pages of html_page.py: their JSON, elements whose text is never markup, sections.
"use strict";

const data = JSON.parse(document.getElementById("data").textContent);

const DRAWN = new Set(["svg", "g", "rect", "path", "line", "circle", "text", "image"]);

// Makes an element from attributes (a function is a listener) and children: elements, text, or null for none.
function make(tag, attributes = {}, ...children) {
  const element = DRAWN.has(tag) ? document.createElementNS("http://www.w3.org/2000/svg", tag)
    : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes))
    if (typeof value === "function") element.addEventListener(name, value);
    else if (name === "style") element.style.cssText = value; // the policy allows styles that a script sets
    else element.setAttribute(name, value);
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

const count = (number) => number.toLocaleString("en");
const capital = (text) => text[0].toUpperCase() + text.slice(1);
const percent = (part, whole) => `${whole ? ((100 * part) / whole).toFixed(1) : 0} %`;

function section(id, title, ...children) {
  document.getElementById("sections").append(make("a", { href: `#${id}` }, title));
  const made = make("section", { id }, make("h2", {}, title), ...children);
  document.getElementById("main").append(made);
  return made;
}
