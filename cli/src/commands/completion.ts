/** `warren completion SHELL`: made from the program itself, so that it is never behind. */
import { Argument, type Command } from "commander";

interface Described {
  readonly name: string;
  readonly summary: string;
  readonly options: readonly string[];
}

function describe(program: Command): Described[] {
  return program.commands.map((command) => ({
    name: command.name(),
    summary: command.description(),
    options: command.options.flatMap((option) =>
      [option.long, option.short].filter((flag) => flag !== undefined),
    ),
  }));
}

const writers: Record<string, (commands: readonly Described[]) => string> = {
  bash: (commands) => `_warren() {
  local word=\${COMP_WORDS[COMP_CWORD]} verb=\${COMP_WORDS[1]}
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W "${commands.map(({ name }) => name).join(" ")}" -- "$word"))
    return
  fi
  case $verb in
${commands.map(({ name, options }) => `    ${name}) COMPREPLY=($(compgen -W "${options.join(" ")}" -- "$word")) ;;`).join("\n")}
  esac
  [ \${#COMPREPLY[@]} -eq 0 ] && COMPREPLY=($(compgen -f -- "$word"))
}
complete -F _warren warren
`,
  zsh: (commands) => `#compdef warren
_warren() {
  local -a verbs
  verbs=(
${commands.map(({ name, summary }) => `    '${name}:${summary.replaceAll("'", "")}'`).join("\n")}
  )
  if (( CURRENT == 2 )); then _describe 'verb' verbs; return; fi
  case $words[2] in
${commands.map(({ name, options }) => `    ${name}) compadd -- ${options.join(" ")} ;;`).join("\n")}
  esac
  _files
}
compdef _warren warren
`,
  fish: (commands) =>
    commands
      .flatMap(({ name, summary, options }) => [
        `complete -c warren -n __fish_use_subcommand -a ${name} -d '${summary.replaceAll("'", "")}'`,
        ...options
          .filter((option) => option.startsWith("--"))
          .map(
            (option) => `complete -c warren -n '__fish_seen_subcommand_from ${name}' -l ${option.slice(2)}`,
          ),
      ])
      .join("\n")
      .concat("\n"),
};

export function completionCommand(program: Command): void {
  program
    .command("completion")
    .description('print a completion script; add it to your shell: eval "$(warren completion bash)"')
    .addArgument(new Argument("<shell>").choices(Object.keys(writers)))
    .action((shell: string) => {
      process.stdout.write(writers[shell]!(describe(program)));
    });
}
