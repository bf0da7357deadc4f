/** The commands in a piece of shell, as words: enough for what documents show. Nothing is run or expanded. Pure. */

/** Each command's words, without what is redirected; `&&`, `|`, `;`, `&`, brackets and line ends part them. Throws if a quote stays open. */
export function shellCommands(source: string): string[][] {
  const commands: string[][] = [];
  let words: string[] = [];
  let word: string | undefined;
  let redirected = false;

  const endWord = (): void => {
    if (word !== undefined && !redirected) {
      words.push(word);
    }
    redirected &&= word === undefined;
    word = undefined;
  };
  const endCommand = (): void => {
    endWord();
    redirected = false;
    if (words.length > 0) {
      commands.push(words);
    }
    words = [];
  };

  for (let at = 0; at < source.length; at += 1) {
    const char = source[at];
    if (char === "'" || char === '"') {
      const end = source.indexOf(char, at + 1);
      if (end < 0) {
        throw new Error(`a quote stays open: ${source.slice(at, at + 40)}`);
      }
      word = (word ?? '') + source.slice(at + 1, end);
      at = end;
    } else if (char === '\\') {
      at += 1;
      if (source[at] !== '\n') {
        word = (word ?? '') + source[at];
      }
    } else if (char === '#' && word === undefined) {
      const end = source.indexOf('\n', at);
      at = (end < 0 ? source.length : end) - 1;
    } else if (char === '<' || char === '>') {
      endWord();
      redirected = true;
    } else if ('\n;|&()'.includes(char)) {
      endCommand();
    } else if (/\s/.test(char)) {
      endWord();
    } else {
      word = (word ?? '') + char;
    }
  }
  endCommand();
  return commands;
}
