/**
 * What a shell is told once: to ask `warren __complete -- WORDS…` at each Tab. Each line of the answer is a word, a tab and a
 * summary; or `:files` or `:directories`, which the shell knows better.
 */

const bash = `_warren() {
  local word=\${COMP_WORDS[COMP_CWORD]} line value
  local -a paths
  COMPREPLY=()
  while IFS= read -r line; do
    case $line in
      :files) compopt -o filenames; mapfile -t paths < <(compgen -f -- "$word"); COMPREPLY+=("\${paths[@]}") ;;
      :directories) compopt -o filenames; mapfile -t paths < <(compgen -d -- "$word"); COMPREPLY+=("\${paths[@]}") ;;
      *)
        value=\${line%%$'\\t'*}
        [[ $value == "$word"* ]] && COMPREPLY+=("$value")
        ;;
    esac
  done < <(warren __complete -- "\${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
}
complete -F _warren warren
`;

const zsh = `#compdef warren
_warren() {
  local line value
  local -a found
  while IFS= read -r line; do
    case $line in
      :files) _files ;;
      :directories) _files -/ ;;
      *)
        value=\${line%%$'\\t'*}
        found+=("\${value//:/\\\\:}:\${line#*$'\\t'}")
        ;;
    esac
  done < <(warren __complete -- "\${(@)words[2,CURRENT]}" 2>/dev/null)
  (( \${#found} )) && _describe 'warren' found
}
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
compdef _warren warren
`;

const fish = `function __warren_complete
  set -l words (commandline -opc) (commandline -ct)
  for line in (warren __complete -- $words[2..] 2>/dev/null)
    switch $line
      case ':files'
        __fish_complete_path (commandline -ct)
      case ':directories'
        __fish_complete_directories (commandline -ct)
      case '*'
        echo $line
    end
  end
end
complete -c warren -f -a '(__warren_complete)'
`;

export const scripts: Readonly<Record<string, string>> = { bash, zsh, fish };
