/** The Temperature Threshold feature: an upper and a lower one of the composite temperature. NVMe Base 2.0 §5.27.1.3. Owned by main. */
import {
  Fid,
  TemperatureThreshold,
  Thsel,
  TMPSEL_ALL,
  TMPSEL_COMPOSITE,
} from '../../spec/features.ts';
import { type Feature, type FeatureResult, ok, refused } from './feature.ts';

/** Kelvin: 70 °C. WCTEMP, and the upper threshold until the host sets one. */
export const WARNING_TEMPERATURE = 343;

export class TemperatureThresholds implements Feature {
  readonly fid = Fid.TEMPERATURE_THRESHOLD;
  #over = WARNING_TEMPERATURE;
  #under = 0;

  /** A composite temperature (K) is at or beyond a threshold. */
  warnsAt(temperature: number): boolean {
    return temperature >= this.#over || temperature <= this.#under;
  }

  get(which: 'current' | 'default', value: number): FeatureResult {
    const { tmpsel, thsel } = TemperatureThreshold.decode(value);
    if (tmpsel !== TMPSEL_COMPOSITE || thsel > Thsel.UNDER) {
      return refused();
    }
    const over = which === 'current' ? this.#over : WARNING_TEMPERATURE;
    const under = which === 'current' ? this.#under : 0;
    return ok(thsel === Thsel.OVER ? over : under);
  }

  set(value: number): FeatureResult {
    const { tmpth, tmpsel, thsel } = TemperatureThreshold.decode(value);
    if ((tmpsel !== TMPSEL_COMPOSITE && tmpsel !== TMPSEL_ALL) || thsel > Thsel.UNDER) {
      return refused();
    }
    if (thsel === Thsel.OVER) {
      this.#over = tmpth;
    } else {
      this.#under = tmpth;
    }
    return ok();
  }

  reset(): void {
    this.#over = WARNING_TEMPERATURE;
    this.#under = 0;
  }
}
