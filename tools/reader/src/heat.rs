//! The heat map: scores drawn straight from the tensor's buffer, in the renderer's own pass.

use eframe::{
    egui,
    egui_wgpu::{self, CallbackResources, CallbackTrait, ScreenDescriptor, wgpu},
};
use rambutan_engine::gpu::shared::SharedBuffer;

/// Chunks in rows, from the text's start at the top left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    /// Cells a row.
    pub columns: usize,
    /// Rows.
    pub rows: usize,
    /// Chunks.
    pub chunks: usize,
}

impl Grid {
    /// Cells about as high as wide, in a rectangle of this size.
    pub fn new(chunks: usize, size: egui::Vec2) -> Grid {
        let aspect = f64::from((size.x / size.y.max(1.0)).max(0.01));
        let columns = ((chunks as f64 * aspect).sqrt().ceil() as usize).clamp(1, chunks.max(1));
        Grid { columns, rows: chunks.div_ceil(columns).max(1), chunks }
    }

    /// Where a chunk is drawn.
    pub fn cell(&self, rect: egui::Rect, chunk: usize) -> egui::Rect {
        let size = rect.size() / egui::vec2(self.columns as f32, self.rows as f32);
        let at = egui::vec2((chunk % self.columns) as f32, (chunk / self.columns) as f32);
        egui::Rect::from_min_size(rect.min + at * size, size)
    }

    /// The chunk that is drawn at a point.
    pub fn at(&self, rect: egui::Rect, point: egui::Pos2) -> Option<usize> {
        let part = (point - rect.min) / rect.size();
        let inside = |v: f32| (0.0..1.0).contains(&v);
        let chunk =
            (part.y * self.rows as f32) as usize * self.columns + (part.x * self.columns as f32) as usize;
        (inside(part.x) && inside(part.y) && chunk < self.chunks).then_some(chunk)
    }
}

/// What is drawn in one frame.
struct Heat {
    /// Held until egui has submitted what draws it.
    scores: SharedBuffer,
    grid: Grid,
}

/// The pipeline, made once.
pub struct Painter {
    pipeline: wgpu::RenderPipeline,
    params: wgpu::Buffer,
    group: Option<wgpu::BindGroup>,
}

impl Painter {
    /// For targets of `format`.
    pub fn new(device: &wgpu::Device, format: wgpu::TextureFormat) -> Painter {
        let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label: Some("heat map"),
            source: wgpu::ShaderSource::Wgsl(include_str!("heat.wgsl").into()),
        });
        let pipeline = device.create_render_pipeline(&wgpu::RenderPipelineDescriptor {
            label: Some("heat map"),
            layout: None,
            vertex: wgpu::VertexState {
                module: &module,
                entry_point: Some("corner"),
                compilation_options: Default::default(),
                buffers: &[],
            },
            fragment: Some(wgpu::FragmentState {
                module: &module,
                entry_point: Some("colour"),
                compilation_options: Default::default(),
                targets: &[Some(format.into())],
            }),
            primitive: Default::default(),
            depth_stencil: None,
            multisample: Default::default(),
            multiview_mask: None,
            cache: None,
        });
        let params = device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("heat map"),
            size: 16,
            usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        Painter { pipeline, params, group: None }
    }
}

impl CallbackTrait for Heat {
    fn prepare(
        &self,
        device: &wgpu::Device,
        queue: &wgpu::Queue,
        _: &ScreenDescriptor,
        _: &mut wgpu::CommandEncoder,
        resources: &mut CallbackResources,
    ) -> Vec<wgpu::CommandBuffer> {
        let Some(painter) = resources.get_mut::<Painter>() else { return Vec::new() };
        let Some(scores) = self.scores.binding() else { return Vec::new() };
        let words = [self.grid.columns, self.grid.rows, self.grid.chunks, 0].map(|n| n as u32);
        queue.write_buffer(&painter.params, 0, &words.map(u32::to_le_bytes).concat());
        painter.group = Some(device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some("heat map"),
            layout: &painter.pipeline.get_bind_group_layout(0),
            entries: &[
                wgpu::BindGroupEntry { binding: 0, resource: painter.params.as_entire_binding() },
                wgpu::BindGroupEntry { binding: 1, resource: scores },
            ],
        }));
        Vec::new()
    }

    fn paint(
        &self,
        _: egui::PaintCallbackInfo,
        pass: &mut wgpu::RenderPass<'static>,
        resources: &CallbackResources,
    ) {
        let Some(painter) = resources.get::<Painter>() else { return };
        let Some(group) = &painter.group else { return };
        // egui has set the viewport to the map's rectangle.
        pass.set_pipeline(&painter.pipeline);
        pass.set_bind_group(0, group, &[]);
        pass.draw(0..3, 0..1);
    }
}

/// Draws the first `grid.chunks` of `scores` into `rect`.
pub fn show(ui: &egui::Ui, rect: egui::Rect, scores: SharedBuffer, grid: Grid) {
    ui.painter().add(egui_wgpu::Callback::new_paint_callback(rect, Heat { scores, grid }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_and_points_agree() {
        let rect = egui::Rect::from_min_size(egui::pos2(10.0, 20.0), egui::vec2(300.0, 100.0));
        for chunks in [1, 2, 7, 100, 1025] {
            let grid = Grid::new(chunks, rect.size());
            assert!(
                grid.columns * grid.rows >= chunks && grid.columns * (grid.rows - 1) < chunks,
                "{grid:?}"
            );
            for chunk in 0..chunks {
                assert_eq!(grid.at(rect, grid.cell(rect, chunk).center()), Some(chunk));
            }
            assert_eq!(grid.at(rect, egui::pos2(9.0, 25.0)), None);
        }
    }
}
