/** Curves and ratios as SVG. */

import { BarChart, LineChart } from 'echarts/charts';
import { GridComponent, MarkLineComponent, TitleComponent } from 'echarts/components';
import { init, use } from 'echarts/core';
import { SVGRenderer } from 'echarts/renderers';
import type { CurveResult, ScenarioResult } from './measure.ts';
import { axisValue, quantity } from './report.ts';
import type { Curve } from './scenarios.ts';

use([BarChart, LineChart, GridComponent, MarkLineComponent, TitleComponent, SVGRenderer]);

const SIZE = { width: 720, height: 400 } as const;
const TEXT = { fontFamily: 'sans-serif', fontSize: 13 } as const;

function render(
  option: Parameters<ReturnType<typeof init>['setOption']>[0],
  height: number,
): string {
  const chart = init(null, null, { renderer: 'svg', ssr: true, width: SIZE.width, height });
  try {
    chart.setOption({ animation: false, backgroundColor: '#fff', textStyle: TEXT, ...option });
    return chart.renderToSVGString();
  } finally {
    chart.dispose();
  }
}

/** A line over a logarithmic axis of what varies. */
export function curveChart(curve: Curve, { points }: CurveResult): string {
  const bytes = curve.unit === 'bytes';
  return render(
    {
      title: { text: curve.title, left: 'center', textStyle: { fontSize: 14 } },
      grid: { left: 80, right: 30, top: 50, bottom: 50 },
      xAxis: {
        type: 'category',
        name: curve.axis,
        nameLocation: 'middle',
        nameGap: 30,
        data: points.map(({ value }) => axisValue(curve, value)),
      },
      yAxis: {
        type: 'value',
        name: bytes ? 'GB/s' : 'IOPS',
        axisLabel: { formatter: (value: number) => quantity(value) },
      },
      series: [
        {
          type: 'line',
          data: points.map(({ iops, bytesPerSecond }) => (bytes ? bytesPerSecond / 1e9 : iops)),
        },
      ],
    },
    SIZE.height,
  );
}

/** A bar a scenario: its share of its yardstick, whose rate is 1. */
export function ratioChart(results: readonly ScenarioResult[]): string {
  const held = results.filter(({ ratio }) => ratio !== undefined);
  return render(
    {
      title: { text: 'IOPS of the yardstick', left: 'center', textStyle: { fontSize: 14 } },
      grid: { left: 150, right: 40, top: 40, bottom: 30 },
      xAxis: { type: 'value' },
      yAxis: {
        type: 'category',
        inverse: true,
        data: held.map(({ name, yardstick }) => `${name} (${yardstick})`),
        axisLabel: { width: 140, overflow: 'truncate' },
      },
      series: [
        {
          type: 'bar',
          data: held.map(({ ratio }) => Number(ratio?.toFixed(3))),
          label: { show: true, position: 'right' },
          markLine: { symbol: 'none', label: { show: false }, data: [{ xAxis: 1 }] },
        },
      ],
    },
    80 + 24 * held.length,
  );
}
