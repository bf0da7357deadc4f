/** What a test wants of a Markdown file: its headings, links, code. Pure; the Markdown that docs/ uses, not all there is. */

export interface Fence {
  /** What is written behind the backticks: the language. */
  readonly language: string;
  readonly text: string;
  readonly line: number;
}

export interface Located {
  readonly text: string;
  readonly line: number;
}

export interface Markdown {
  /** As GitHub makes them of the headings: what `#…` of a link may be. */
  readonly anchors: ReadonlySet<string>;
  readonly headings: readonly Located[];
  /** Targets of links and images, Markdown's and HTML's. */
  readonly links: readonly Located[];
  readonly fences: readonly Fence[];
  /** What stands between backticks in the text. */
  readonly spans: readonly Located[];
}

const FENCE = /^ *```(.*)$/;
const HEADING = /^#{1,6} +(.*)$/;
const SPAN = /(`+)(.+?)\1/g;
const LINK = /\]\(([^)\s]+)\)/g;
const HTML_LINK = /(?:src|href)="([^"]+)"/g;

export function parseMarkdown(source: string): Markdown {
  const anchors = new Set<string>();
  const headings: Located[] = [];
  const links: Located[] = [];
  const fences: Fence[] = [];
  const spans: Located[] = [];
  let open: { language: string; line: number; lines: string[] } | undefined;
  source.split('\n').forEach((row, index) => {
    const line = index + 1;
    const fence = FENCE.exec(row);
    if (fence !== null) {
      if (open === undefined) {
        open = { language: fence[1].trim(), line, lines: [] };
      } else {
        fences.push({ language: open.language, line: open.line, text: open.lines.join('\n') });
        open = undefined;
      }
      return;
    }
    if (open !== undefined) {
      open.lines.push(row);
      return;
    }
    const heading = HEADING.exec(row)?.[1];
    if (heading !== undefined) {
      headings.push({ text: heading, line });
      anchors.add(unique(anchorOf(heading), anchors));
    }
    for (const [, , text] of row.matchAll(SPAN)) {
      spans.push({ text, line });
    }
    const plain = row.replace(SPAN, '``');
    for (const [, text] of [...plain.matchAll(LINK), ...plain.matchAll(HTML_LINK)]) {
      links.push({ text, line });
    }
  });
  if (open !== undefined) {
    throw new Error(`line ${open.line}: the block is not closed`);
  }
  return { anchors, headings, links, fences, spans };
}

/** Lower case, without punctuation, hyphens for spaces. */
function anchorOf(heading: string): string {
  return heading
    .replace(/\[([^\]]*)\]\([^)]*\)/g, '$1')
    .toLowerCase()
    .replace(/[^\p{L}\p{N}\s_-]/gu, '')
    .trim()
    .replace(/\s/g, '-');
}

function unique(anchor: string, taken: ReadonlySet<string>): string {
  let name = anchor;
  for (let n = 1; taken.has(name); n += 1) {
    name = `${anchor}-${n}`;
  }
  return name;
}
