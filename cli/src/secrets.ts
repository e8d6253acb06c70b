/** Which values of an environment look secret, so that a terminal does not show them. */

const secretName =
  /SECRET|TOKEN|PASSW|PASSPHRASE|PWD|API_?KEY|(?:^|_)KEYS?(?:_|$)|CREDENTIAL|PRIVATE|AUTH|COOKIE|DSN|SALT/i;
/** Keys of well-known services, JSON Web Tokens, PEM. */
const secretValue = /^(?:sk|pk|rk|whsec|ghp|gho|github_pat|xox[abps]|glpat|AKIA|eyJ)[-_\w]{8,}|-----BEGIN /;
const passwordInUrl = /(:\/\/[^\s:/@]*:)[^\s/@]+(?=@)/g;

const mask = "••••••";

export function masked(name: string, value: string): string {
  if (value === "") return value;
  if (secretName.test(name) || secretValue.test(value)) return mask;
  return value.replace(passwordInUrl, `$1${mask}`);
}
