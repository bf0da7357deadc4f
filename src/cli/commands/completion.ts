/** `doorbell completion`: a script for a shell; and the hidden command that the script calls. */
import { Argument, type Command } from 'commander';

/** Adds `completion` to the program. */
export function addCompletion(program: Command): void {
  program
    .command('completion')
    .description('Print the script that completes doorbell’s commands in a shell.')
    .addArgument(new Argument('<shell>', 'which shell').choices(['bash', 'zsh', 'fish']))
    .addHelpText(
      'after',
      `
Examples:
  eval "$(doorbell completion bash)"       in ~/.bashrc
  source <(doorbell completion zsh)        in ~/.zshrc, after compinit
  doorbell completion fish | source        in ~/.config/fish/config.fish

It completes commands, options, their values, files; and methods and keys of doorbell rpc, which it asks the running target for.`,
    )
    .action(async (shell: 'bash' | 'zsh' | 'fish') => {
      const { SCRIPTS } = await import('../completion/scripts.ts');
      process.stdout.write(SCRIPTS[shell]);
    });
  program
    .command('__complete', { hidden: true })
    .description('Print what can follow a command line.')
    .argument('[words...]')
    .action(async (words: string[]) => {
      const { complete, formatCompletion } = await import('../completion/candidates.ts');
      process.stdout.write(formatCompletion(await complete(program, words)));
    });
}
