// Measured speeds, as [m/s, µs] in ascending order of the speed, when what surrounds them is measured anew.

const LEAST_US = 1; // between neighbours (calibration/values.py)
const LEAST_MPS = 0.02;

// A car must know a forward speed, or none at all.
const drivable = (curve) => (curve.some(([mps]) => mps > 0) ? curve : []);

/** The same pulses, whose direction was taken wrong. */
export const turnedSpeeds = (curve) => drivable(curve.map(([mps, us]) => [-mps, us]).reverse());

/** What of them lies between start of movement and full speed. Where full speed is slower now, it is the last one. */
export function fittingSpeeds(curve, throttle) {
  const side = (name, sign) => {
    const startUs = throttle[`${name}_start_us`] ?? throttle.neutral_us;
    const endUs = throttle[`${name}_us`];
    const out = (us) => (endUs > startUs ? us - startUs : startUs - us);
    const points = curve
      .filter(([mps, us]) => sign * mps > 0 && out(us) >= LEAST_US)
      .sort((a, b) => Math.abs(a[0]) - Math.abs(b[0]));
    const kept = points.filter(([, us]) => out(us) <= out(endUs));
    const beyond = points[kept.length];
    const last = kept.at(-1) ?? [0, startUs];
    if (beyond !== undefined && out(endUs) - out(last[1]) >= LEAST_US) {
      const share = (endUs - last[1]) / (beyond[1] - last[1]);
      const mps = Math.round(100 * (last[0] + share * (beyond[0] - last[0]))) / 100;
      if (Math.abs(mps - last[0]) >= LEAST_MPS) {
        kept.push([mps, endUs]);
      }
    }
    return kept;
  };
  return drivable([...side("reverse", -1), ...side("forward", 1)].sort((a, b) => a[0] - b[0]));
}
