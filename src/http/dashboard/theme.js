/** The colours of the style sheet, for what is drawn on canvases; they change with the system's light or dark setting. */

const dark = matchMedia('(prefers-color-scheme: dark)');

/** @param {string} name a custom property of style.css, with its dashes */
export function color(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

/** Of labels on canvases. */
export function labelFont() {
  return `11px ${color('--font')}`;
}

/** @param {() => void} listener */
export function onThemeChange(listener) {
  dark.addEventListener('change', listener);
}
