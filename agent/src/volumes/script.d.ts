/** Programs that are run by another process: their text. */
declare module "*.script.js" {
  const text: string;
  export default text;
}
