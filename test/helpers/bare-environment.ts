/** The environment of a test's child that is to be what it is for anybody: without the loaders that tap puts into the test's own process. */
export function bareEnvironment(): NodeJS.ProcessEnv {
  const { NODE_OPTIONS: _, ...env } = process.env;
  return env;
}
