/** The scripts that shells source. They hold no words of their own: each asks `doorbell __complete` what can follow. */

const BASH = `# bash completion of doorbell; in ~/.bashrc: eval "$(doorbell completion bash)"
_doorbell() {
  local cur=\${COMP_WORDS[COMP_CWORD]} IFS=$'\\n' lines after
  COMPREPLY=()
  mapfile -t lines < <("\${COMP_WORDS[0]}" __complete -- "\${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
  (( \${#lines[@]} > 0 )) || return 0
  after=\${lines[-1]}
  unset 'lines[-1]'
  COMPREPLY=("\${lines[@]%%$'\\t'*}")
  case $after in
    :files)
      compopt -o filenames 2>/dev/null
      COMPREPLY+=($(compgen -f -- "\${cur#=}"))
      ;;
    :nospace)
      compopt -o nospace 2>/dev/null
      ;;
  esac
}
complete -F _doorbell doorbell
`;

const ZSH = `#compdef doorbell
# zsh completion of doorbell; in ~/.zshrc after compinit: source <(doorbell completion zsh)
_doorbell() {
  local -a lines described
  local line after
  lines=("\${(@f)$("\${words[1]}" __complete -- "\${(@)words[2,CURRENT]}" 2>/dev/null)}")
  after=\${lines[-1]}
  for line in "\${(@)lines[1,-2]}"; do
    described+=("\${\${line%%$'\\t'*}//:/\\\\:}:\${line#*$'\\t'}")
  done
  case $after in
    :files) _files ;;
    :nospace) _describe -V doorbell described -S '' ;;
    *) _describe -V doorbell described ;;
  esac
}
compdef _doorbell doorbell
`;

const FISH = `# fish completion of doorbell; in ~/.config/fish/config.fish: doorbell completion fish | source
function __doorbell_complete
    set -l words (commandline -opc) (commandline -ct)
    set -l lines ($words[1] __complete -- $words[2..-1] 2>/dev/null)
    test (count $lines) -gt 0; or return
    if test (count $lines) -gt 1
        printf '%s\\n' $lines[1..-2]
    end
    if test "$lines[-1]" = ':files'
        __fish_complete_path (commandline -ct)
    end
end
complete -c doorbell -f -a '(__doorbell_complete)'
`;

/** By the shell's name. */
export const SCRIPTS = { bash: BASH, zsh: ZSH, fish: FISH } as const;
