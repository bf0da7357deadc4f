/** Mends the language of browsers that run without a locale: they report a tag like en-US@posix, which uPlot passes on to Intl, and Intl throws. */

try {
  Intl.getCanonicalLocales(navigator.language);
} catch {
  Object.defineProperty(navigator, 'language', { value: 'en-US' });
}
