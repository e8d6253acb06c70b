/** The quick gate (`make check`) leaves out what takes seconds, or is only another way to the same; CI runs all of it. */
export const isQuick = process.env.WARREN_TEST_QUICK === "1";
